"""Pages as tensors: what a step writes into them and attends to. The only file here that knows regard.run's kernels.

Everything that all layers of a step share (block tables, lengths, slots, what a window hides) is computed once, in
`StepLayout`; a layer then writes its keys and values and attends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from regard import core
from regard.run.native import NATIVE
from regard.run.native.views import Views
from regard.run.pages import new_pages, write_pages
from regard.serve.pool import Copy
from regard.serve.scheduler import Work


@dataclass(frozen=True, eq=False)
class Attends:
    """How one attention module attends: its layer, its group of pages, and what its scores are."""

    layer: int
    window: int | None
    scale: float
    softcap: float | None = None
    sink: Tensor | None = None

    @property
    def terms(self) -> tuple[core.Term, ...]:
        """The scores in core records."""
        return (core.Dot(self.scale), *(() if self.softcap is None else (core.Softcap(self.softcap),)))

    @property
    def alike(self) -> tuple[Any, ...]:
        """The same for layers whose attention differs in its tensors alone."""
        return self.window, self.scale, self.softcap, None if self.sink is None else self.layer


class Pages:
    """Key and value pages of every layer. groups: by window, the number of its group and how many pages it has."""

    def __init__(
        self, groups: dict[int | None, tuple[int, int]], page_size: int, dtype: torch.dtype = torch.float32
    ) -> None:
        self.groups = groups
        self.page_size = page_size
        self.dtype = dtype
        self.by_layer: dict[int, tuple[int, Tensor, Tensor]] = {}
        self._views: dict[int, tuple[Any, Any]] = {}

    def of(self, how: Attends, groups: int, key_width: int, value_width: int) -> tuple[int, Tensor, Tensor]:
        """The group of a layer's pages and its key and value pages, made when it is first met."""
        pages = self.by_layer.get(how.layer)
        if pages is None:
            group, num_pages = self.groups[how.window]
            made = new_pages(num_pages, groups, key_width, value_width, self.page_size, self.dtype)
            pages = self.by_layer[how.layer] = (group, *made)
        return pages

    def views(self, layer: int) -> tuple[Any, Any]:
        """A layer's pages as the native core is told of them."""
        found = self._views.get(layer)
        if found is None:
            _, keys, values = self.by_layer[layer]
            views = Views()
            found = self._views[layer] = views.view(keys), views.view(values)
        return found

    def copy(self, copies: Sequence[Copy]) -> None:
        """Copy pages, in order."""
        for copy in copies:
            for group, keys, values in self.by_layer.values():
                if group == copy.group:
                    keys[copy.target], values[copy.target] = keys[copy.source], values[copy.source]


class StepLayout:
    """Where the rows of a step stand, sequence by sequence, and what of their attention all layers share."""

    def __init__(self, work: Sequence[Work], page_size: int) -> None:
        self.work = work
        self.page_size = page_size
        counts = [w.stop - w.start for w in work]
        self.num_single = next((i for i, count in enumerate(counts) if count > 1), len(counts))  # first ones of one row
        self.cu_rows = [0, *accumulate(counts)]
        self.lengths = torch.tensor([w.stop for w in work], dtype=torch.int32)
        # Plain Python: a step has few rows, and threads that would share them cost more than the work.
        self.sequence_of_row = torch.tensor([i for i, count in enumerate(counts) for _ in range(count)])
        self.positions = torch.tensor([position for w in work for position in range(w.start, w.stop)])
        self._tables: dict[int, Tensor] = {}
        self._slots: dict[int, Tensor] = {}
        self._layouts: dict[int, core.Paged] = {}
        self._plans: dict[Any, core.Plan] = {}

    def table(self, group: int) -> Tensor:
        """int32 [S, pages]: the block table of a group; pages given back read as 0, which nothing looks at."""
        table = self._tables.get(group)
        if table is None:
            lists = [w.sequence.table.pages[group] for w in self.work]
            wide = max(map(len, lists))
            table = torch.tensor([pages + [0] * (wide - len(pages)) for pages in lists], dtype=torch.int32)
            self._tables[group] = table = table.clamp(min=0)
        return table

    def slots(self, group: int) -> Tensor:
        """int64 [T]: where each row's key and value go."""
        slots = self._slots.get(group)
        if slots is None:
            page = self.table(group)[self.sequence_of_row, self.positions // self.page_size]
            self._slots[group] = slots = page.long() * self.page_size + self.positions % self.page_size
        return slots

    def layout(self, group: int) -> core.Paged:
        """The step as regard.run knows it."""
        layout = self._layouts.get(group)
        if layout is None:
            cu_query = torch.tensor(self.cu_rows, dtype=torch.int32)
            layout = self._layouts[group] = core.Paged(self.table(group), self.lengths, self.page_size, cu_query)
        return layout

    def plan(self, how: Attends, group: int, q: Tensor, keys: Tensor, values: Tensor) -> core.Plan:
        """The attention of one layer; layers that attend alike share all but the tensors."""
        plan = self._plans.get(how.alike)
        if plan is None:
            layout = self.layout(group)
            plan = self._plans[how.alike] = core.Plan(
                q,
                keys,
                values,
                layout.query_positions,
                layout.key_positions,
                how.terms,
                layout.causal(how.window),
                core.Softmax(how.sink),
                layout,
            )
        return plan.over(q, keys, values)


def write_and_attend(q: Tensor, k: Tensor, v: Tensor, how: Attends, layout: StepLayout, pages: Pages) -> Tensor:
    """Put the step's keys and values into their pages, and attend. q [1,H,T,Dk], k [1,G,T,Dk], v [1,G,T,Dv] ->
    [1,T,H,Dv]."""
    k, v = k[0].transpose(0, 1), v[0].transpose(0, 1)
    group, keys, values = pages.of(how, k.shape[1], k.shape[2], v.shape[2])
    write_pages(k, v, layout.slots(group), keys, values)
    out = NATIVE.walk(layout.plan(how, group, q, keys, values), None, True).out
    assert out is not None
    return out.transpose(1, 2)


def row_weights(q: Tensor, rows: Tensor, longest: int, how: Attends, layout: StepLayout, pages: Pages) -> Tensor:
    """The exact weights of some rows of a step on the keys of their sequences, [rows, H, longest] float32; 0 beyond.

    q [T,H,D]; rows: int64, indices into T; longest: keys that the longest of their sequences may see.
    """
    group, keys, _ = pages.by_layer[how.layer]
    weights = torch.zeros((len(rows), q.shape[1], longest))
    sequences = layout.sequence_of_row[rows]
    for sequence in sequences.unique_consecutive().tolist():
        own = (sequences == sequence).nonzero()[:, 0]
        positions = layout.positions[rows[own]]
        num_keys = int(positions.max()) + 1
        pages_of = layout.table(group)[sequence, : -(-num_keys // layout.page_size)].long()
        k = keys[pages_of].permute(1, 2, 0, 3).flatten(2)[:, :, :num_keys].float()  # [G, D, keys]
        weights[own, :, :num_keys] = _weights(q[rows[own]].float(), k, positions, how)
    return weights


def _weights(q: Tensor, k: Tensor, positions: Tensor, how: Attends) -> Tensor:
    """q [R,H,D], k [G,D,n], positions [R] -> a [R,H,n]."""
    count, heads, width = q.shape
    groups, _, num_keys = k.shape
    by_group = q.view(count, groups, heads // groups, width).permute(1, 2, 0, 3).flatten(1, 2)
    scores = (by_group @ k).view(groups, heads // groups, count, num_keys).flatten(0, 1) * how.scale
    if how.softcap is not None:
        scores = how.softcap * torch.tanh(scores / how.softcap)
    back = positions[:, None] - torch.arange(num_keys)
    hidden = back < 0 if how.window is None else (back < 0) | (back >= how.window)
    # A page that was given back may hold anything, NaN too: what is hidden never reaches the arithmetic.
    scores = scores.masked_fill(hidden, -torch.inf)
    if how.sink is not None:
        sink = how.sink[:, None, None].expand(-1, count, 1)
        return torch.softmax(torch.cat([scores, sink], -1), -1)[..., :-1].transpose(0, 1)
    return torch.softmax(scores, -1).transpose(0, 1)
