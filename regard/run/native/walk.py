"""One walk of a plan by the extension: results allocated, the call made, results handed back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from regard import core
from regard.core.layout import Packed, Paged
from regard.run.native import decode
from regard.run.native.compiled import compiled, empty_like_rows
from regard.run.native.views import Views, unit_stride
from regard.run.output import Output

NO_CELL = (0, 0, 0)


def walk(plan: core.Plan, watch: core.Watch | None, output: bool) -> Output:
    """The output if it is wanted, the rows' state, and what each watched record gives.

    The output of a sequence in pages with one query is made by the decoding kernel, watched or not.
    """
    plan = _as_numbers_lie(plan)
    if output and isinstance(plan.layout, Paged):
        rows = decode.rows_of(plan)
        if rows is not None:
            return _decoded(plan, watch, rows)
    if watch is None:
        return _plain(plan, output)
    return _watched(plan, watch, output)


def _plain(plan: core.Plan, output: bool) -> Output:
    record = compiled(plan, output)
    out, row_max, row_log_sum = _results(plan, output)
    addresses = [t.data_ptr() if t is not None else 0 for t in (plan.q, plan.k, plan.v, out, row_max, row_log_sum)]
    record.raw.again(addresses, torch.get_num_threads())
    return Output(out, row_max, row_log_sum)


def _watched(plan: core.Plan, watch: core.Watch, output: bool) -> Output:
    """As `_plain`, with results for every watched record."""
    views, record = Views(), compiled(plan, output)
    raw = views.native.Call(record.raw)
    statistics = _add_watch(raw, views, plan, watch)
    out, row_max, row_log_sum = _results(plan, output)
    addresses = [t.data_ptr() if t is not None else 0 for t in (plan.q, plan.k, plan.v, out, row_max, row_log_sum)]
    raw.again(addresses, torch.get_num_threads())
    return Output(out, row_max, row_log_sum, statistics)


def _decoded(plan: core.Plan, watch: core.Watch | None, rows: decode.Rows) -> Output:
    """Sequences of one query by the decoding kernel, the others by the general walk; statistics by a walk of their own,
    so that watching changes no bit of the output."""
    out, row_max, row_log_sum = _results(plan, True)
    assert out is not None
    decode.run(plan, rows, out, row_max, row_log_sum)
    if rows.others:
        record = rows.general(plan)
        addresses = [t.data_ptr() if t is not None else 0 for t in (plan.q, plan.k, plan.v, out, row_max, row_log_sum)]
        record.raw.again(addresses, torch.get_num_threads())
    statistics = () if watch is None else _watched(plan, watch, False).statistics
    return Output(out, row_max, row_log_sum, statistics)


def _as_numbers_lie(plan: core.Plan) -> core.Plan:
    """The same with what is lazily negated negated."""
    if not (plan.q.is_neg() or plan.k.is_neg() or (plan.v is not None and plan.v.is_neg())):
        return plan
    v = None if plan.v is None else plan.v.resolve_neg()
    return plan.over(plan.q.resolve_neg(), plan.k.resolve_neg(), v)


def _results(plan: core.Plan, output: bool) -> tuple[Tensor | None, Tensor, Tensor]:
    batch, heads, queries, _ = plan.q.shape
    out = empty_like_rows(plan.q, 0 if plan.v is None else plan.v.shape[3]) if output else None
    rows = torch.empty((2, batch, heads, queries), device="cpu")
    return out, rows[0], rows[1]


def _add_watch(raw: Any, views: Views, plan: core.Plan, watch: core.Watch) -> tuple[Tensor | tuple[Tensor, ...], ...]:
    """Result tensors of every watched record, made known to the call."""
    batch, heads, queries, _ = plan.q.shape
    if watch.key_scale is not None:
        raw.key_scale = views.floats(watch.key_scale, batch, heads, plan.num_keys)
    if watch.counted is not None:
        raw.counted = views.view(watch.counted.to(torch.bool).expand(batch, queries))
    return tuple(_add_statistic(raw, views, plan, record) for record in watch.statistics)


def _add_statistic(raw: Any, views: Views, plan: core.Plan, wanted: core.CoreStatistic) -> Tensor | tuple[Tensor, ...]:
    batch, heads, queries, _ = plan.q.shape
    keys, rows = plan.num_keys, (batch, heads, queries)
    nothing = views.nothing

    def zeros(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device="cpu")

    def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device="cpu")

    def add(kind: int, result: Tensor, size: int = 0, first: Any = nothing, second: Any = nothing) -> Tensor:
        raw.statistic(kind, size, NO_CELL, first, second, views.view(result), nothing)
        return result

    def labels(tensor: Tensor, length: int) -> Any:
        return views.view(unit_stride(tensor.to(torch.int32)).expand(batch, length))

    match wanted:
        case core.RowEntropy():
            return add(0, empty(*rows))
        case core.RowMax():
            return add(1, empty(*rows))
        case core.RowSum():
            return add(2, empty(*rows), first=views.floats(unit_stride(wanted.feature), batch, keys))
        case core.RowMatch():
            own, other = labels(wanted.query_labels, queries), labels(wanted.key_labels, keys)
            return add(3, empty(*rows), first=own, second=other)
        case core.RowDistance():
            return add(4, empty(*rows))
        case core.ColumnMass():
            return add(6, zeros(batch, heads, keys))
        case core.DistanceHistogram():
            histograms = plan.layout.num_documents if isinstance(plan.layout, Packed) else batch
            return add(7, zeros(histograms, heads, wanted.bins), size=wanted.bins)
        case core.TopK():
            weights, top = empty(*rows, wanted.k), empty(*rows, wanted.k, dtype=torch.int32)
            raw.statistic(5, wanted.k, NO_CELL, nothing, nothing, views.view(weights), views.view(top))
            return weights, top
        case core.Pool():
            shape = (batch, heads, *wanted.cells(queries, keys))
            total, most = zeros(*shape), zeros(*shape, dtype=torch.float32)
            cell = (wanted.query_shift, wanted.key_shift, wanted.query_offset)
            raw.statistic(8, 0, cell, nothing, nothing, views.view(total), views.view(most))
            return total, most
