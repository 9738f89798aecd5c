"""What the extension is told of a watch, but for where results go: made once for a step, used again for its layers.

All float32 results of a call lie side by side in one tensor, and so do all that are sums over rows, float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, overload

import torch
from torch import Tensor

from regard import core
from regard.core.layout import Packed
from regard.run.native.compiled import CPU, compiled
from regard.run.native.views import Views, unit_stride
from regard.run.output import Result

NO_CELL = (0, 0, 0)
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Wanted:
    """One result tensor. sums: over rows, float64; integers: keys, int32; else float32."""

    shape: Shape
    sums: bool = False
    integers: bool = False


class Results(Sequence[Result]):
    """What each watched record gives, cut from the tensors of a call when it is first read."""

    def __init__(self, wanted: list[tuple[Wanted, ...]], single: Tensor, double: Tensor) -> None:
        self._wanted, self._single, self._double = wanted, single, double

    @overload
    def __getitem__(self, index: int) -> Result: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Result, ...]: ...

    def __getitem__(self, index: int | slice) -> Result | tuple[Result, ...]:
        return self._cut[index]

    def __len__(self) -> int:
        return len(self._wanted)

    @cached_property
    def _cut(self) -> tuple[Result, ...]:
        at = {False: 0, True: 0}  # by whether they are sums
        cut: list[Result] = []
        for group in self._wanted:
            tensors = []
            for one in group:
                begin, size = at[one.sums], math.prod(one.shape)
                flat = (self._double if one.sums else self._single)[begin : begin + size]
                tensors.append((flat.view(torch.int32) if one.integers else flat).view(one.shape))
                at[one.sums] = begin + size
            cut.append(tuple(tensors) if len(tensors) > 1 else tensors[0])
        return tuple(cut)


@dataclass(frozen=True, eq=False)
class CompiledWatch:
    """raw: the extension's record with its statistics. wanted: the results of each. alive: what raw points to."""

    raw: Any
    wanted: list[tuple[Wanted, ...]]
    alive: list[Tensor]

    def results(self) -> tuple[Results, list[int]]:
        """New tensors for all results, which the extension fills whole; the addresses of each record's, two apiece."""
        single = torch.empty(self._sizes[0], device=CPU)
        double = torch.empty(self._sizes[1], dtype=torch.float64, device=CPU)
        begin = (single.data_ptr(), double.data_ptr())
        addresses = [begin[which] + offset if which < 2 else 0 for which, offset in self._offsets]
        return Results(self.wanted, single, double), addresses

    @cached_property
    def _sizes(self) -> tuple[int, int]:
        """How many float32 and float64 numbers a call gives."""
        counts = [0, 0]
        for one in (one for group in self.wanted for one in group):
            counts[one.sums] += math.prod(one.shape)
        return counts[0], counts[1]

    @cached_property
    def _offsets(self) -> list[tuple[int, int]]:
        """Of each record's two results: 0 in float32, 1 in float64, 2 for none; and how many bytes from its begin."""
        bytes_before = [0, 0]
        offsets: list[tuple[int, int]] = []
        for group in self.wanted:
            for one in group:
                offsets.append((int(one.sums), bytes_before[one.sums]))
                bytes_before[one.sums] += math.prod(one.shape) * (8 if one.sums else 4)
            offsets += [(2, 0)] * (2 - len(group))
        return offsets


def compiled_watch(plan: core.Plan, watch: core.Watch, output: bool) -> CompiledWatch:
    """The watch's record for a plan."""
    of_plan = compiled(plan, output)
    record: CompiledWatch | None = watch.compiled.get(id(of_plan))
    if record is None:
        views = Views()
        raw = views.native.Call(of_plan.raw)
        batch, heads, queries, _ = plan.q.shape
        if watch.key_scale is not None:
            raw.key_scale = views.floats(watch.key_scale, batch, heads, plan.num_keys)
        if watch.counted is not None:
            raw.counted = views.view(watch.counted.to(torch.bool).expand(batch, queries))
        wanted = [_add(raw, views, plan, one) for one in watch.statistics]
        # the plan's record is kept too, so that its id stays its own
        record = watch.compiled[id(of_plan)] = CompiledWatch(raw, wanted, [*views.alive, *of_plan.alive])
        watch.compiled[id(of_plan), "plan"] = of_plan
    return record


def _add(raw: Any, views: Views, plan: core.Plan, record: core.CoreStatistic) -> tuple[Wanted, ...]:
    """Tell the extension of one record; the results it wants."""
    batch, heads, queries, _ = plan.q.shape
    keys, rows = plan.num_keys, (batch, heads, queries)
    first = second = views.nothing
    wanted: tuple[Wanted, ...] = (Wanted(rows),)
    kind, size, cell = 0, 0, NO_CELL
    match record:
        case core.RowEntropy():
            kind = 0
        case core.RowMax():
            kind = 1
        case core.RowSum():
            kind, first = 2, views.floats(unit_stride(record.feature), batch, keys)
        case core.RowMatch():
            kind = 3
            first, second = (
                _labels(views, record.query_labels, batch, queries),
                _labels(views, record.key_labels, batch, keys),
            )
        case core.RowDistance():
            kind = 4
        case core.TopK():
            kind, size, wanted = 5, record.k, (Wanted((*rows, record.k)), Wanted((*rows, record.k), integers=True))
        case core.ColumnMass():
            kind, wanted = 6, (Wanted((batch, heads, keys), sums=True),)
        case core.DistanceHistogram():
            histograms = plan.layout.num_documents if isinstance(plan.layout, Packed) else batch
            kind, size, wanted = 7, record.bins, (Wanted((histograms, heads, record.bins), sums=True),)
        case core.Pool():
            shape = (batch, heads, *record.cells(queries, keys))
            kind, wanted = 8, (Wanted(shape, sums=True), Wanted(shape))
            cell = (record.query_shift, record.key_shift, record.query_offset)
    results = [_like(views, one) for one in wanted]
    raw.statistic(kind, size, cell, first, second, results[0], results[1] if len(results) > 1 else views.nothing)
    return wanted


def _labels(views: Views, labels: Tensor, batch: int, length: int) -> Any:
    return views.view(unit_stride(labels.to(torch.int32)).expand(batch, length))


def _like(views: Views, one: Wanted) -> Any:
    """A view of a result's shape and type, without memory; where it lies is said with each call."""
    strides = [math.prod(one.shape[i + 1 :]) for i in range(len(one.shape))]
    return views.native.view(0, 5 if one.sums else 3 if one.integers else 0, list(one.shape), strides)
