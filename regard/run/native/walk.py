"""One walk of a plan by the extension: results allocated, the call made, results handed back."""

from __future__ import annotations

import torch
from torch import Tensor

from regard import core
from regard.core.layout import Paged
from regard.run.native import decode
from regard.run.native.compiled import CPU, compiled, empty_like_rows
from regard.run.native.watched import compiled_watch
from regard.run.output import Output


def walk(plan: core.Plan, watch: core.Watch | None, output: bool) -> Output:
    """The output if it is wanted, the rows' state unless the output is all that is wanted, and what each watched record
    gives.

    The output of a sequence in pages with one query is made by the decoding kernel, watched or not.
    """
    if plan.q.is_neg() or plan.k.is_neg() or (plan.v is not None and plan.v.is_neg()):
        plan = _as_numbers_lie(plan)
    if output and isinstance(plan.layout, Paged):
        rows = decode.rows_of(plan)
        if rows is not None:
            return _decoded(plan, watch, rows)
    if watch is None or not watch.statistics:
        return _plain(plan, output, watch is not None or not output)
    return _watched(plan, watch, output)


def _plain(plan: core.Plan, output: bool, rows: bool) -> Output:
    record = compiled(plan, output)
    out = _empty_output(plan) if output else None
    row_max, row_log_sum = _empty_rows(plan) if rows else (None, None)
    record.raw.again(_addresses(plan, out, row_max, row_log_sum), torch.get_num_threads())
    return Output(out, row_max, row_log_sum)


def _watched(plan: core.Plan, watch: core.Watch, output: bool) -> Output:
    """As `_plain`, with results for every watched record."""
    record = compiled_watch(plan, watch, output)
    results, results_at = record.results()
    out = _empty_output(plan) if output else None
    row_max, row_log_sum = _empty_rows(plan)
    addresses = _addresses(plan, out, row_max, row_log_sum)
    record.raw.watch(addresses, results_at, torch.get_num_threads())
    return Output(out, row_max, row_log_sum, results)


def _decoded(plan: core.Plan, watch: core.Watch | None, rows: decode.Rows) -> Output:
    """Sequences of one query by the decoding kernel, the others by the general walk; statistics by a walk of their own,
    so that watching changes no bit of the output."""
    out = _empty_output(plan)
    row_max, row_log_sum = _empty_rows(plan)
    decode.run(plan, rows, out, row_max, row_log_sum)
    if rows.others:
        record = rows.general(plan)
        record.raw.again(_addresses(plan, out, row_max, row_log_sum), torch.get_num_threads())
    statistics = _watched(plan, watch, False).statistics if watch is not None and watch.statistics else ()
    return Output(out, row_max, row_log_sum, statistics)


def _as_numbers_lie(plan: core.Plan) -> core.Plan:
    """The same with what is lazily negated negated."""
    v = None if plan.v is None else plan.v.resolve_neg()
    return plan.over(plan.q.resolve_neg(), plan.k.resolve_neg(), v)


def _addresses(
    plan: core.Plan, out: Tensor | None, row_max: Tensor | None, row_log_sum: Tensor | None
) -> tuple[int, ...]:
    """Where the tensors of a walk lie, in the order that the extension takes them; 0 for what there is not."""
    v = plan.v
    return (
        plan.q.data_ptr(),
        plan.k.data_ptr(),
        0 if v is None else v.data_ptr(),
        0 if out is None else out.data_ptr(),
        0 if row_max is None else row_max.data_ptr(),
        0 if row_log_sum is None else row_log_sum.data_ptr(),
    )


def _empty_output(plan: core.Plan) -> Tensor:
    q, v = plan.q, plan.v
    if v is not None and v.shape[3] == q.shape[3] and q.is_contiguous():
        return torch.empty_like(q)
    return empty_like_rows(q, 0 if v is None else v.shape[3])


def _empty_rows(plan: core.Plan) -> tuple[Tensor, Tensor]:
    rows = plan.q.shape[:3]
    return torch.empty(rows, device=CPU), torch.empty(rows, device=CPU)
