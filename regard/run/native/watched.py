"""What the extension is told of a watch, but for where results go: made once for a step, used again for its layers.

All float32 results of a call lie side by side in one tensor, and so do all that are sums over rows, float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from regard import core
from regard.core.layout import Packed
from regard.run.native.compiled import CPU, compiled
from regard.run.native.views import Views, unit_stride

NO_CELL = (0, 0, 0)
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Wanted:
    """One result tensor. sums: over rows, in float64 from 0; integers: keys, int32; cleared: from 0 too."""

    shape: Shape
    sums: bool = False
    integers: bool = False
    cleared: bool = False


@dataclass(frozen=True, eq=False)
class Results:
    """What each watched record gives, and the addresses of it, two for each record."""

    statistics: tuple[Tensor | tuple[Tensor, ...], ...]
    addresses: list[int]


@dataclass(frozen=True, eq=False)
class CompiledWatch:
    """raw: the extension's record with its statistics. wanted: the results of each. alive: what raw points to."""

    raw: Any
    wanted: list[tuple[Wanted, ...]]
    alive: list[Tensor]

    def results(self) -> Results:
        """New tensors for all results."""
        flat = [one for group in self.wanted for one in group]
        sizes = (
            [math.prod(one.shape) for one in flat if not one.sums],
            [math.prod(one.shape) for one in flat if one.sums],
        )
        single = iter(torch.empty(sum(sizes[0]), device=CPU).split(sizes[0]))
        double = iter(torch.zeros(sum(sizes[1]), dtype=torch.float64, device=CPU).split(sizes[1]))
        statistics: list[Tensor | tuple[Tensor, ...]] = []
        addresses: list[int] = []
        for group in self.wanted:
            tensors = []
            for one in group:
                tensor = next(double if one.sums else single)
                tensor = tensor.view(torch.int32) if one.integers else tensor
                tensors.append(tensor.view(one.shape).zero_() if one.cleared else tensor.view(one.shape))
            addresses += [tensors[0].data_ptr(), tensors[1].data_ptr() if len(tensors) > 1 else 0]
            statistics.append(tuple(tensors) if len(tensors) > 1 else tensors[0])
        return Results(tuple(statistics), addresses)


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
            kind, wanted = 8, (Wanted(shape, sums=True), Wanted(shape, cleared=True))
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
