"""One walk of a plan by the extension: results allocated, the call made, results handed back."""

from __future__ import annotations

import torch
from torch import Tensor

from regard import core
from regard.core.layout import Paged
from regard.run.native import decode
from regard.run.native.compiled import compiled, empty_like_rows
from regard.run.native.watched import compiled_watch
from regard.run.output import Output


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
    record = compiled_watch(plan, watch, output)
    results = record.results()
    out, row_max, row_log_sum = _results(plan, output)
    addresses = [t.data_ptr() if t is not None else 0 for t in (plan.q, plan.k, plan.v, out, row_max, row_log_sum)]
    record.raw.watch(addresses, results.addresses, torch.get_num_threads())
    return Output(out, row_max, row_log_sum, results.statistics)


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
