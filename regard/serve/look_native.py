"""Attention on request by the native core: the weights of a row in all heads, reduced while they are in cache."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from regard.run.native.extension import extension
from regard.run.native.views import Views, unit_stride
from regard.serve.look import Seen, Wanted
from regard.serve.pages import Attends, Pages, StepLayout


class NativeGroup:
    """Rows of all sequences that ask alike. Results lie [rows, layers, heads, …], so that a row is one piece."""

    def __init__(self, members: list[tuple[int, Wanted]], num_layers: int) -> None:
        self.members = members
        self.look = members[0][1].look
        self.layers = list(range(num_layers)) if self.look.layers is None else sorted(self.look.layers)
        self.results: dict[str, tuple[Tensor, ...]] = {}
        self.step: Any = None
        self.at = {layer: i for i, layer in enumerate(self.layers)}
        self.tables: dict[int, list[int]] = {}  # by group of pages, where each member's block table lies
        self.queries: tuple[Tensor, Any, Views] | None = None  # layers that share a buffer share its view

    def layer(self, q: Tensor, how: Attends, layout: StepLayout, pages: Pages) -> None:
        index = self.at.get(how.layer)
        if index is None:
            return
        if self.step is None:
            self.step = self._started(q.shape[1], layout)
        group = pages.by_layer[how.layer][0]
        rows = self.tables.get(group)
        if rows is None:
            table = layout.table(group)
            rows = self.tables[group] = [table.data_ptr() + 4 * table.shape[1] * i for i, _ in self.members]
        sink = 0 if how.sink is None else how.sink.data_ptr()
        numbers = float(how.scale), float(how.softcap or 0.0), int(how.window or 0)
        self.step.see(index, self._view(q), pages.views(how.layer)[0], rows, sink, *numbers, torch.get_num_threads())

    def _view(self, q: Tensor) -> Any:
        """The queries as the extension reads them; kept for the next layer where nothing was copied."""
        if self.queries is None or self.queries[0] is not q:
            views, as_read = Views(), unit_stride(q.float())
            self.queries = as_read, views.view(as_read), views
        return self.queries[1]

    def _started(self, heads: int, layout: StepLayout) -> Any:
        """The extension's record of what is asked, and room for the results."""
        look = self.look
        chosen = list(look.heads) if isinstance(look.heads, tuple) else []
        outputs = 1 if look.heads == "mean" else len(chosen) or heads
        count, layers = sum(len(w.positions) for _, w in self.members), len(self.layers)
        spans = max(len(w.look.spans) for _, w in self.members) + 1
        shape = (count, layers, outputs)
        made: dict[str, tuple[Tensor, ...]] = {"entropy": (torch.empty(shape),), "sink": (torch.empty(shape),)}
        made["messages"] = (torch.zeros((*shape, spans)),)
        made["top"] = (torch.empty((*shape, look.top_k)), torch.empty((*shape, look.top_k), dtype=torch.int32))
        self.results = {name: made[name] for name in made if name in look.statistics}
        lists = [*made["top"], *made["entropy"], *made["sink"], *made["messages"]]
        names = ["top", "top", "entropy", "sink", "messages"]
        addresses = [x.data_ptr() if name in look.statistics else 0 for name, x in zip(names, lists)]
        sizes = [layers, look.top_k, look.sinks, spans]
        step = extension().seen_step(look.heads == "mean", chosen, sizes, addresses)
        result = 0
        for i, w in self.members:
            first = layout.cu_rows[i] - layout.work[i].start + w.positions.start
            received, keys = 0, 0
            if "received" in look.statistics:
                sums = w.received.room(layers, outputs, w.positions.stop)
                received, keys = sums.data_ptr(), sums.shape[2]
            own = [x for span in w.look.spans for x in span]
            step.add([first, len(w.positions), w.positions.start, result], own, received, keys)
            result += len(w.positions)
        return step

    def finish(self) -> None:
        """Hand every row its part of the results."""
        row = 0
        for _, w in self.members:
            for position in w.positions:
                w.rows.append(Seen(position, self._of_row(row, position, len(w.look.spans))))
                row += 1

    def _of_row(self, row: int, position: int, num_spans: int) -> dict[str, tuple[Tensor, ...]]:
        found: dict[str, tuple[Tensor, ...]] = {}
        for name in self.look.statistics:
            if name in self.results:
                found[name] = tuple(x[row] for x in self.results[name])
        if "top" in found:
            most = min(self.look.top_k, position + 1)
            found["top"] = tuple(x[..., :most] for x in found["top"])
        if "messages" in found:
            found["messages"] = (found["messages"][0][..., : num_spans + 1],)
        return found
