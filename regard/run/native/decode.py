"""Decoding: sequences in pages with one query each, by a kernel that reads pages where they lie, once for all heads of
a group.

It takes a dot product with one scale, a sink, and one interval of visible keys up to the newest. A long sequence is cut
every 2,048 tokens and joined in order, so a result depends on its own sequence alone, not on the batch or threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from regard import core
from regard.core.layout import Paged
from regard.run.native.compiled import CPU, Compiled, compiled
from regard.run.native.views import Views


@dataclass(frozen=True, eq=False)
class Rows:
    """What the decoding kernel takes of a plan. sequences: which; rows: their queries' places among all, None for all.

    raw: the extension's record; alive: what it points to. others: the sequences that the general walk takes.
    """

    sequences: list[int]
    rows: Tensor | None
    others: list[int]
    raw: Any
    alive: list[Tensor]

    def general(self, plan: core.Plan) -> Compiled:
        """The record of the general walk, for the other sequences alone."""
        key = ("others", plan.q.stride(), plan.k.stride())
        record = plan.compiled.get(key)
        if record is None:
            whole = compiled(plan, True)
            views = Views()
            raw = views.native.Call(whole.raw)
            assert isinstance(plan.layout, Paged)
            raw.documents(list(plan.layout.queries), list(plan.layout.keys), self.others)
            record = plan.compiled[key] = Compiled(raw, whole.alive)
        return record


def rows_of(plan: core.Plan) -> Rows | None:
    """What the decoding kernel takes of this plan, None for nothing; decided once for a plan."""
    if "decode" not in plan.compiled:
        plan.compiled["decode"] = _rows_of(plan)
    rows: Rows | None = plan.compiled["decode"]
    return rows


def run(plan: core.Plan, rows: Rows, out: Tensor, row_max: Tensor, row_log_sum: Tensor) -> None:
    """Write the results of these rows: out [1,H,Tq,Dv], row_max and row_log_sum [1,H,Tq]."""
    assert plan.v is not None
    q = plan.q.detach()[0].transpose(0, 1)
    q = (q if rows.rows is None else q[rows.rows]).float().contiguous()
    packed = out[0].transpose(0, 1)  # [Tq,H,Dv]
    direct = rows.rows is None and packed.is_contiguous() and packed.dtype == torch.float32
    some = packed if direct else torch.empty((len(q), q.shape[1], plan.v.shape[3]), device=CPU)
    state = torch.empty((2, *some.shape[:2]), device=CPU)
    addresses = [t.data_ptr() for t in (q, plan.k, plan.v, some, state[0], state[1])]
    rows.raw.again(addresses, torch.get_num_threads())
    at = slice(None) if rows.rows is None else rows.rows
    if not direct:
        packed[at] = some.to(out.dtype)
    row_max[0, :, at], row_log_sum[0, :, at] = state[0].T, state[1].T


def _rows_of(plan: core.Plan) -> Rows | None:
    layout, dot = plan.layout, plan.terms[0]
    assert isinstance(layout, Paged)
    one_scale = isinstance(dot, core.Dot) and not (isinstance(dot.scale, Tensor) and dot.scale.numel() > 1)
    if len(plan.terms) > 1 or not one_scale or plan.ranges.start.shape[1] > 1 or plan.ranges.start.shape[3] > 1:
        return None
    single = (layout.cu_query[1:] - layout.cu_query[:-1]) == 1
    row = layout.cu_query[:-1].long().clamp(max=max(layout.queries[-1] - 1, 0))
    start, stop = (
        side[0, 0, row, 0] if len(row) else side.new_zeros(0) for side in (plan.ranges.start, plan.ranges.stop)
    )
    single &= (stop == layout.sizes) & (start < stop)
    if not bool(single.any()):
        return None
    sequences = single.nonzero().flatten()
    new = (layout.cu_query[1:] - layout.cu_query[:-1]) > 0
    others = (~single & new).nonzero().flatten().tolist()
    everything = len(sequences) == layout.queries[-1]
    return _compiled(plan, layout, sequences, None if everything else row[sequences], start[sequences], others)


def _compiled(
    plan: core.Plan, layout: Paged, sequences: Tensor, rows: Tensor | None, start: Tensor, others: list[int]
) -> Rows:
    made = record(plan, layout, sequences, start)
    return Rows(sequences.tolist(), rows, others, made.raw, made.alive)


def record(plan: core.Plan, layout: Paged, sequences: Tensor, start: Tensor) -> Compiled:
    """The kernel's record of these sequences, for queries and outputs [sequences, H, width] that lie side by side."""
    assert plan.v is not None and isinstance(plan.terms[0], core.Dot)
    views, heads = Views(), plan.q.shape[1]
    raw = views.native.Decode()
    count, table = len(sequences), layout.table[sequences].contiguous()
    q = torch.empty((count, heads, plan.q.shape[3]), device=CPU)
    out = torch.empty((count, heads, plan.v.shape[3]), device=CPU)
    raw.q, raw.out = views.view(q), views.view(out)
    raw.row_max = raw.row_log_sum = views.view(torch.empty((count, heads), device=CPU))
    raw.key_pages, raw.value_pages = views.view(plan.k), views.view(plan.v)
    raw.block_table, raw.lengths = views.view(table), views.view(layout.sizes[sequences].contiguous())
    raw.starts = views.view(start.to(torch.int32).contiguous())
    raw.sink = views.floats(plan.softmax.sink, heads)
    raw.scale = float(plan.terms[0].scale)
    return Compiled(raw, views.alive)
