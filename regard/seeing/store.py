"""A layer's queries, keys and row states, from which any rectangle of its exact weights comes at that rectangle's cost.

With the largest visible score m_i of a row and l_i = log Σ_j e^{s_ij - m_i} (the sink's term included), a weight is
a_ij = e^{s_ij - m_i - l_i}: no other key of the row is needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from regard import core
from regard.growing import Growing
from regard.run.backend import Backend
from regard.seeing.cells import allowed_per_cell
from regard.seeing.pooling import pooled_of
from regard.seeing.rectangle import row_state, weights_of
from regard.seeing.scoring import Scoring, Window
from regard.statistic import Axis

UNKNOWN = torch.nan
HALF = (torch.bfloat16, torch.float16)


@dataclass(eq=False)
class Store:
    """What is kept of one layer: q [B,H,rows,D], k [B,G,keys,D], row states float32 [B,H,rows], and how rows scored.

    row_max is NaN where the walk that made the statistics gave no row states; such rows are walked when asked for.
    """

    q: Growing | None = None
    k: Growing | None = None
    row_max: Growing | None = None
    row_log_sum: Growing | None = None
    scorings: list[Scoring] = field(default_factory=list)

    def append(
        self, plan: core.Plan, rows: slice, first_key: int, state: tuple[Tensor | None, Tensor | None] = (None, None)
    ) -> None:
        """Keep one call: the queries of slots `rows`, and of the keys from slot `first_key` on those that are new.

        state: its rows' maxima and log-sums, where they are known.
        """
        unknown = plan.q.new_full(plan.q.shape[:3], UNKNOWN, dtype=torch.float32)
        row_max, row_log_sum = (unknown if part is None else part for part in state)
        self.q = _appended(self.q, plan.q.detach(), rows.start)
        self.row_max = _appended(self.row_max, row_max, rows.start)
        self.row_log_sum = _appended(self.row_log_sum, row_log_sum, rows.start)
        seen = first_key if self.k is None else max(first_key, self.k.end[0])
        if self.k is None or seen < first_key + plan.k.shape[2]:
            self.k = _appended(self.k, plan.k.detach()[:, :, seen - first_key :], seen)
        scoring = Scoring.of(plan, rows, first_key)
        if not self.scorings or not self.scorings[-1].extend(scoring):
            self.scorings.append(scoring)

    @torch.no_grad()
    def rectangle(
        self, batch: int, head: int, rows: slice, keys: slice, axes: tuple[Axis, Axis], walks: Sequence[Backend]
    ) -> Tensor:
        """Exact weights float32 [rows, keys] of one sequence and one head, by its index among those kept.

        axes: of queries and keys; walks: the fused backends to try, in turn.
        """
        weights = torch.zeros(rows.stop - rows.start, keys.stop - keys.start)
        for scoring, w in self._parts(batch, head, rows, keys):
            state = self._state(scoring, w, axes, walks)
            plan = self._plan(scoring, w, axes)
            at = slice(w.rows.start - rows.start, w.rows.stop - rows.start)
            weights[at, w.keys.start - keys.start : w.keys.stop - keys.start] = weights_of(plan, *state, walks).cpu()
        return weights

    @torch.no_grad()
    def pooled(
        self,
        batch: int,
        head: int,
        rows: slice,
        keys: slice,
        shifts: tuple[int, int],
        axes: tuple[Axis, Axis],
        walks: Sequence[Backend],
    ) -> tuple[Tensor, Tensor]:
        """Sum and maximum float32 of the weights in each cell of 2^shifts tokens, anchored at the rectangle's corner.

        Rows of padding count nothing. Within 1e-5 of exact weights: see `pooling`.
        """
        cells = [-(-(s.stop - s.start) >> shift) for s, shift in zip((rows, keys), shifts, strict=True)]
        total, most = torch.zeros(cells), torch.zeros(cells)
        for scoring, w in self._parts(batch, head, rows, keys):
            plan = self._plan(scoring, w, axes)
            row_max, row_log_sum = self._state(scoring, w, axes, walks)
            state = row_max.double() + row_log_sum.double()
            state = state.masked_fill(~axes[0].valid[batch, w.rows].to(state.device), torch.inf)
            lead = (w.rows.start - rows.start, w.keys.start - keys.start)
            sums, largest = (part.cpu() for part in pooled_of(plan, state, shifts, lead))
            total[: sums.shape[0], : sums.shape[1]] += sums
            most[: sums.shape[0], : sums.shape[1]].clamp_(min=largest)
        return total, most

    def allowed(
        self, batch: int, head: int, rows: slice, keys: slice, shifts: tuple[int, int], queries: Axis
    ) -> Tensor:
        """How many pairs of a rectangle are visible in each of its cells of 2^shifts tokens, anchored at its corner.

        Rows of padding see nothing. float64 [row cells, key cells].
        """
        cells = [-(-(s.stop - s.start) >> shift) for s, shift in zip((rows, keys), shifts, strict=True)]
        pairs = torch.zeros(cells, dtype=torch.float64)
        for scoring, w in self._parts(batch, head, rows, slice(0, keys.stop)):
            window = Window(w.batch, w.head, w.group, w.rows, keys)
            lead = w.rows.start - rows.start
            part = allowed_per_cell(scoring.ranges(window), queries.valid[batch, None, w.rows], shifts, lead, 1)[0, 0]
            pairs[lead >> shifts[0] : (lead >> shifts[0]) + part.shape[0]] += part.cpu()
        return pairs

    def _parts(self, batch: int, head: int, rows: slice, keys: slice) -> Iterator[tuple[Scoring, Window]]:
        """What of a rectangle each scoring holds, cut to keys that are stored."""
        if self.q is None or self.k is None:
            return
        heads, groups = self.q.live().shape[1], self.k.live().shape[1]
        for scoring in self.scorings:
            some = slice(max(rows.start, scoring.begin), min(rows.stop, scoring.end))
            left = max(keys.start, self.k.begin[0], scoring.first_key)
            of = slice(left, min(keys.stop, self.k.end[0], scoring.last_key))
            if some.start < some.stop and of.start < of.stop:
                yield scoring, Window(batch, head, head // (heads // groups), some, of)

    def _plan(self, scoring: Scoring, w: Window, axes: tuple[Axis, Axis]) -> core.Plan:
        """A window as a call of its own, with no values and no sink."""
        assert self.q is not None and self.k is not None
        q = self.q.live()[w.batch : w.batch + 1, w.head : w.head + 1, _from(w.rows, self.q)]
        k = self.k.live()[w.batch : w.batch + 1, w.group : w.group + 1, _from(w.keys, self.k)]
        if q.dtype in HALF:  # a backend would hand the weights out in the queries' type
            q, k = q.float(), k.float()
        one = slice(w.batch, w.batch + 1)
        at_rows, at_keys = axes[0].positions[one, w.rows], axes[1].positions[one, w.keys]
        return core.Plan(q, k, None, at_rows, at_keys, scoring.cut(w), scoring.ranges(w), core.Softmax())

    def _state(
        self, scoring: Scoring, w: Window, axes: tuple[Axis, Axis], walks: Sequence[Backend]
    ) -> tuple[Tensor, Tensor]:
        """Maxima and log-sums float32 [rows] of a window's rows, over all their keys."""
        assert self.row_max is not None and self.row_log_sum is not None and self.k is not None
        rows = _from(w.rows, self.row_max)
        row_max, row_log_sum = (part.live()[w.batch, w.head, rows] for part in (self.row_max, self.row_log_sum))
        if not bool(row_max.isnan().any()):
            return row_max, row_log_sum
        every = slice(max(self.k.begin[0], scoring.first_key), min(self.k.end[0], scoring.last_key))
        whole = self._plan(scoring, Window(w.batch, w.head, w.group, w.rows, every), axes)
        sink = None if scoring.sink is None else scoring.sink.flatten()[w.head : w.head + 1]
        return row_state(whole, sink, walks)

    # ---- to and from a file -------------------------------------------------------------------------------------

    def saved(self) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
        """How the rows scored, as JSON, and all tensors by name."""
        parts = {"q": self.q, "k": self.k, "row_max": self.row_max, "row_log_sum": self.row_log_sum}
        tensors = {name: part.live() for name, part in parts.items() if part is not None}
        said = []
        for number, scoring in enumerate(self.scorings):
            about, its = scoring.saved()
            said.append(about)
            tensors |= {f"scoring {number}/{name}": value for name, value in its.items()}
        return said, tensors

    @staticmethod
    def read(about: Sequence[Mapping[str, Any]], tensors: Mapping[str, Tensor]) -> Store:
        """What `saved` gave; the tensors may be mapped, and stay so."""
        parts = {}
        for name in ("q", "k", "row_max", "row_log_sum"):
            value = tensors.get(name)
            parts[name] = None if value is None else Growing(value, (0,) * (value.ndim - 2))
        scorings = []
        for number, said in enumerate(about):
            start = f"scoring {number}/"
            its = {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}
            scorings.append(Scoring.read(said, its))
        return Store(**parts, scorings=scorings)


def _appended(before: Growing | None, values: Tensor, at: int) -> Growing:
    """Copies of values from slot `at` on, after those before them."""
    part = Growing(values, (at, *[0] * (values.ndim - 3)))
    if before is not None:
        return before.join(part, "set")
    part.region(part.begin, part.end)  # makes a copy
    return part


def _from(slots: slice, part: Growing) -> slice:
    """Slots as indices of what is live."""
    return slice(slots.start - part.begin[0], slots.stop - part.begin[0])
