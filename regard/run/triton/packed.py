"""Packed layouts on a GPU: a decoding step from pages by its own kernel, everything else a document at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from regard import core
from regard.core.layout import Paged
from regard.run.documents import dense_plans
from regard.run.output import Output
from regard.run.triton import calls, decode


def walk(plan: core.Plan, output: bool) -> Output:
    """The output [1,H,Tq,Dv] and the rows' state."""
    if output and isinstance(plan.layout, Paged) and _is_a_step(plan, plan.layout):
        return _step(plan, plan.layout)
    batch, heads, queries, _ = plan.q.shape
    out = calls.empty_like_rows(plan.q, 0 if plan.v is None else plan.v.shape[3]) if output else None
    row_max, row_log_sum = (plan.q.new_empty((batch, heads, queries), dtype=torch.float32) for _ in range(2))
    for rows, document in dense_plans(plan):
        part = calls.walk(document, None, output)
        assert part.row_max is not None and part.row_log_sum is not None
        row_max[:, :, rows], row_log_sum[:, :, rows] = part.row_max, part.row_log_sum
        if out is not None and part.out is not None:
            out[:, :, rows] = part.out
    return Output(out, row_max, row_log_sum)


def _is_a_step(plan: core.Plan, layout: Paged) -> bool:
    """Whether every sequence has one query that sees one interval up to its newest key; decided once for a plan."""
    if "step" not in plan.compiled:
        ranges, dot = plan.ranges, plan.terms[0]
        simple = len(plan.terms) == 1 and isinstance(dot, core.Dot) and not isinstance(dot.scale, Tensor)
        simple = simple and ranges.start.shape[1] == ranges.start.shape[3] == 1 and layout.table.shape[1] == 1
        one_each = layout.queries == tuple(range(layout.num_documents + 1))
        plan.compiled["step"] = (
            simple and one_each and bool((ranges.stop[0, 0, :, 0].to(layout.sizes.device) == layout.sizes).all())
        )
    return bool(plan.compiled["step"])


def _step(plan: core.Plan, layout: Paged) -> Output:
    assert plan.v is not None and isinstance(plan.terms[0], core.Dot)
    step = decode.paged_decode(
        plan.q[0].transpose(0, 1).contiguous(),
        plan.k,
        plan.v,
        layout,
        scale=float(plan.terms[0].scale),
        starts=plan.ranges.start[0, 0, :, 0],
        sink=plan.softmax.sink,
    )
    assert step.out is not None and step.row_max is not None and step.row_log_sum is not None
    return Output(step.out.transpose(0, 1)[None], step.row_max.T[None], step.row_log_sum.T[None])
