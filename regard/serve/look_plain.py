"""Attention on request in torch: the weights of some rows gathered, then reduced. It says what is meant."""

from __future__ import annotations

import torch
from torch import Tensor

from regard.serve.look import Seen, Wanted
from regard.serve.pages import Attends, Pages, StepLayout, row_weights

CELLS = 1 << 22  # weights held at once: 16 MiB


class PlainGroup:
    """Rows of all sequences that ask alike, in strips whose weights fit in memory, layer after layer."""

    def __init__(self, members: list[tuple[int, Wanted]], num_layers: int) -> None:
        self.members = members
        self.look = members[0][1].look
        self.layers = range(num_layers) if self.look.layers is None else sorted(self.look.layers)
        self._held: list[Tensor] = []
        self._first = 0  # index of the layer of the first held
        self._parts: dict[str, list[tuple[Tensor, ...]]] = {}
        self._rows: Tensor | None = None

    def layer(self, q: Tensor, how: Attends, layout: StepLayout, pages: Pages) -> None:
        if how.layer not in self.layers:
            return
        if self._rows is None:
            self._rows = self._rows_of(layout)
        longest = max(w.positions.stop for _, w in self.members)
        strip = max(1, CELLS // (q.shape[1] * longest))
        if len(self._rows) <= strip:
            self._held.append(row_weights(q, self._rows, longest, how, layout, pages))
            if sum(held.numel() for held in self._held) > CELLS:
                self._flush()
            return
        parts = []
        for begin in range(0, len(self._rows), strip):
            rows = self._rows[begin : begin + strip]
            weights = row_weights(q, rows, longest, how, layout, pages)
            parts.append(self._reduce(weights[None], begin))
        self._keep({name: tuple(torch.cat(xs, 1) for xs in zip(*(p[name] for p in parts))) for name in parts[0]}, 1)

    def _rows_of(self, layout: StepLayout) -> Tensor:
        """int64: the rows of the step that are wanted, member by member."""
        first = [layout.cu_rows[i] - layout.work[i].start for i, _ in self.members]
        return torch.cat(
            [at + torch.arange(w.positions.start, w.positions.stop) for at, (_, w) in zip(first, self.members)]
        )

    def _flush(self) -> None:
        if self._held:
            weights = torch.stack(self._held)
            self._held = []
            self._keep(self._reduce(weights, 0), len(weights))

    def _keep(self, found: dict[str, tuple[Tensor, ...]], layers: int) -> None:
        for name, arrays in found.items():
            self._parts.setdefault(name, []).append(arrays)
        self._first += layers

    def _reduce(self, weights: Tensor, first_row: int) -> dict[str, tuple[Tensor, ...]]:
        """weights [layers, rows, H, keys] -> of each statistic [layers, rows, heads, …]. Adds to what was received."""
        look = self.look
        if isinstance(look.heads, tuple):
            weights = weights[:, :, list(look.heads)]
        mean = look.heads == "mean"
        found: dict[str, tuple[Tensor, ...]] = {}
        together = weights.mean(2, keepdim=True) if mean else weights
        if "top" in look.statistics:
            found["top"] = torch.topk(together, min(look.top_k, together.shape[-1]))
        if "entropy" in look.statistics:
            entropy = torch.special.entr(weights).sum(-1)
            found["entropy"] = (entropy.mean(2, keepdim=True) if mean else entropy,)
        if "sink" in look.statistics:
            found["sink"] = (together[..., : look.sinks].sum(-1),)
        if "messages" in look.statistics:
            found["messages"] = (self._messages(together, first_row),)
        if "received" in look.statistics:
            self._add_received(together, first_row)
        return {name: tuple(arrays) for name, arrays in found.items()}

    def _spans(self, first_row: int, count: int) -> list[tuple[slice, Wanted]]:
        """(rows of a strip, whose they are)."""
        found, at = [], -first_row
        for _, w in self.members:
            begin, end = max(0, at), min(count, at + len(w.positions))
            if begin < end:
                found.append((slice(begin, end), w))
            at += len(w.positions)
        return found

    def _messages(self, together: Tensor, first_row: int) -> Tensor:
        """[layers, rows, heads, most spans + 1]: the mass of each span, and of what comes after the last."""
        most = max(len(w.look.spans) for _, w in self.members) + 1
        masses = together.new_zeros((*together.shape[:3], most))
        for rows, w in self._spans(first_row, together.shape[1]):
            ends = [*w.look.spans, (max((end for _, end in w.look.spans), default=0), together.shape[3])]
            for i, (begin, end) in enumerate(ends):
                masses[:, rows, :, i] = together[:, rows, :, begin:end].sum(-1)
        return masses

    def _add_received(self, together: Tensor, first_row: int) -> None:
        layers = slice(self._first, self._first + len(together))
        for rows, w in self._spans(first_row, together.shape[1]):
            mass = together[:, rows, :, : w.positions.stop].sum(1, dtype=torch.float64)
            w.received.add(layers, mass, len(self.layers))

    def finish(self) -> None:
        self._flush()
        whole = {
            name: tuple(torch.cat(arrays).transpose(0, 1) for arrays in zip(*parts))
            for name, parts in self._parts.items()
        }
        row = 0
        for _, w in self.members:
            for position in w.positions:
                of_row = {name: tuple(array[row] for array in arrays) for name, arrays in whole.items()}
                if "messages" in of_row:
                    of_row["messages"] = (of_row["messages"][0][..., : len(w.look.spans) + 1],)
                w.rows.append(Seen(position, of_row))
                row += 1
