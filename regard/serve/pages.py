"""Pages as tensors: what a step writes into them and attends to. The only file here that knows regard.run's kernels.

Everything that all layers of a step share (block tables, lengths, slots, what a window hides) is computed once, in
`StepLayout`; a layer then writes its keys and values and attends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from regard import core
from regard.ranges import Ranges
from regard.run.layout import Paged
from regard.run.paged import new_pages, paged, paged_decode, write_pages
from regard.serve.pool import GONE, Copy
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


class Pages:
    """Key and value pages of every layer. groups: by window, the number of its group and how many pages it has."""

    def __init__(
        self, groups: dict[int | None, tuple[int, int]], page_size: int, dtype: torch.dtype = torch.float32
    ) -> None:
        self.groups = groups
        self.page_size = page_size
        self.dtype = dtype
        self.by_layer: dict[int, tuple[int, Tensor, Tensor]] = {}

    def of(self, how: Attends, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """The pages of a layer, made when it is first met. k, v [T,G,D]."""
        pages = self.by_layer.get(how.layer)
        if pages is None:
            group, num_pages = self.groups[how.window]
            made = new_pages(num_pages, k.shape[1], k.shape[2], v.shape[2], self.page_size, self.dtype)
            pages = self.by_layer[how.layer] = (group, *made)
        return pages[1], pages[2]

    def copy(self, copies: Sequence[Copy]) -> None:
        """Copy pages, in order."""
        for copy in copies:
            for group, keys, values in self.by_layer.values():
                if group == copy.group:
                    keys[copy.target], values[copy.target] = keys[copy.source], values[copy.source]


class StepLayout:
    """Where the rows of a step stand: rows of sequences with one row first, then those with several."""

    def __init__(self, work: Sequence[Work], page_size: int) -> None:
        self.work = work
        self.page_size = page_size
        self.num_single = sum(w.stop - w.start == 1 for w in work)
        assert all(w.stop - w.start == 1 for w in work[: self.num_single]), "sequences with one row come first"
        counts = [w.stop - w.start for w in work]
        self.cu_rows = [0]
        for count in counts:
            self.cu_rows.append(self.cu_rows[-1] + count)
        self.lengths = torch.tensor([w.stop for w in work], dtype=torch.int32)
        starts = torch.tensor([w.start for w in work])
        self.sequence_of_row = torch.arange(len(work)).repeat_interleave(torch.tensor(counts))
        first_row = torch.tensor(self.cu_rows[:-1])
        self.positions = (starts - first_row)[self.sequence_of_row] + torch.arange(self.cu_rows[-1])
        self._tables: dict[int, Tensor] = {}
        self._slots: dict[int, Tensor] = {}
        self._starts: dict[int, Tensor] = {}
        self._ranges: dict[int | None, Ranges] = {}

    def table(self, group: int) -> Tensor:
        """int32 [S, pages]: the block table of a group; pages given back read as 0, which nothing looks at."""
        table = self._tables.get(group)
        if table is None:
            lists = [w.sequence.table.pages[group] for w in self.work]
            wide = max(map(len, lists))
            table = torch.tensor([pages + [0] * (wide - len(pages)) for pages in lists], dtype=torch.int32)
            self._tables[group] = table = table.where(table != GONE, 0)
        return table

    def slots(self, group: int) -> Tensor:
        """int64 [T]: where each row's key and value go."""
        slots = self._slots.get(group)
        if slots is None:
            page = self.table(group)[self.sequence_of_row, self.positions // self.page_size]
            self._slots[group] = slots = page.long() * self.page_size + self.positions % self.page_size
        return slots

    def single(self, group: int) -> Paged:
        """The sequences with one row."""
        return Paged(self.table(group)[: self.num_single], self.lengths[: self.num_single], self.page_size)

    def several(self, group: int) -> Paged:
        """The sequences with several rows."""
        return Paged(self.table(group)[self.num_single :], self.lengths[self.num_single :], self.page_size)

    @cached_property
    def cu_several(self) -> Tensor:
        """int32: where the rows of each sequence with several begin, counted from the first of them."""
        first = self.cu_rows[self.num_single]
        return torch.tensor([row - first for row in self.cu_rows[self.num_single :]], dtype=torch.int32)

    def starts(self, window: int) -> Tensor:
        """int32 [single]: the first visible slot of each sequence with one row."""
        if window not in self._starts:
            self._starts[window] = (self.lengths[: self.num_single] - window).clamp(min=0)
        return self._starts[window]

    def ranges(self, window: int | None, group: int) -> Ranges:
        """What the rows of sequences with several see."""
        if window not in self._ranges:
            self._ranges[window] = self.several(group).documents(self.cu_several).causal(window)
        return self._ranges[window]


def write_and_attend(q: Tensor, k: Tensor, v: Tensor, how: Attends, layout: StepLayout, pages: Pages) -> Tensor:
    """Put the step's keys and values into their pages, and attend. q [T,H,Dk], k [T,G,Dk], v [T,G,Dv] -> [T,H,Dv]."""
    keys, values = pages.of(how, k, v)
    group = pages.groups[how.window][0]
    write_pages(k, v, layout.slots(group), keys, values)
    single = layout.num_single
    out = torch.empty((q.shape[0], q.shape[1], v.shape[2]), dtype=q.dtype)
    if single and how.softcap is None:
        starts = None if how.window is None else layout.starts(how.window)
        sink = None if how.sink is None else how.sink.float()
        found = paged_decode(q[:single], keys, values, layout.single(group), scale=how.scale, starts=starts, sink=sink)
        assert found.out is not None
        out[:single] = found.out
    elif single:
        alone = layout.single(group)
        seen = alone.documents().causal(how.window)
        out[:single] = _attend(q[:single], keys, values, alone, None, how, seen)
    if single < q.shape[0]:
        seen = layout.ranges(how.window, group)
        out[single:] = _attend(q[single:], keys, values, layout.several(group), layout.cu_several, how, seen)
    return out


def _attend(
    q: Tensor, keys: Tensor, values: Tensor, where: Paged, cu_query: Tensor | None, how: Attends, seen: Ranges
) -> Tensor:
    sink = None if how.sink is None else how.sink.float()
    softmax = core.Softmax(sink)
    out = paged(q, keys, values, where, cu_query, terms=how.terms, ranges=seen, softmax=softmax).out
    assert out is not None
    return out


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
