"""What the extension is told of a plan, but for the addresses of q, k and v: made once, used again for other tensors.

It is kept on the plan. Strides are part of it, so tensors that lie differently get one of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from regard import core
from regard.core.layout import Packed, Paged
from regard.errors import UserError
from regard.run.native.views import Views, unit_stride

CPU = torch.device("cpu")
NUMBERS = {core.KeyBias: 0, core.Slope: 1, core.Distance: 2, core.Table: 3, core.Softcap: 4}


@dataclass(frozen=True, eq=False)
class Compiled:
    """raw: the extension's record. alive: the tensors that it points to."""

    raw: Any
    alive: list[Tensor]


def compiled(plan: core.Plan, output: bool) -> Compiled:
    """The plan's record for tensors that lie like its own. Raises UserError for tensors of other shapes."""
    q, k, v = plan.q, plan.k, plan.v
    key = (
        output,
        q.shape,
        k.shape,
        q.stride(),
        k.stride(),
        q.dtype,
        k.dtype,
        None if v is None else (v.shape, v.stride()),
    )
    record = plan.compiled.get(key)
    if record is None:
        _check_shapes(plan)
        views = Views()
        raw = call_of(plan, views, output)
        batch, heads, queries, _ = q.shape
        rows = torch.empty((batch, heads, queries), device=CPU)
        if output:
            raw.out = views.view(empty_like_rows(q, _value_width(plan)))
        raw.row_max = raw.row_log_sum = views.view(rows)
        record = plan.compiled[key] = Compiled(raw, views.alive)
    return record


def call_of(plan: core.Plan, views: Views, output: bool = True) -> Any:
    """The inputs of a plan as the extension's record."""
    raw = views.native.Call()
    batch, heads, queries, _ = plan.q.shape
    raw.q, raw.k = views.view(plan.q.detach()), views.view(plan.k.detach())
    if output and plan.v is not None:
        raw.v = views.view(plan.v.detach())
    raw.query_positions = views.view(plan.query_positions.to(torch.int64))
    raw.key_positions = views.view(unit_stride(plan.key_positions.to(torch.int64)))
    shape = (batch, heads, queries, plan.ranges.start.shape[3])
    raw.start = views.view(plan.ranges.start.to(torch.int32).expand(shape))
    raw.stop = views.view(plan.ranges.stop.to(torch.int32).expand(shape))
    raw.sink = views.floats(plan.softmax.sink, heads)
    for term in plan.terms:
        _add_term(raw, views, plan, term)
    if isinstance(plan.layout, Packed):
        raw.documents(list(plan.layout.queries), list(plan.layout.keys), list(range(plan.layout.num_documents)))
    if isinstance(plan.layout, Paged):
        raw.block_table = views.view(plan.layout.table)
    return raw


def empty_like_rows(q: Tensor, width: int) -> Tensor:
    """[B,H,Tq,width] in q's type, its heads and tokens laid out in memory as q's are."""
    batch, heads, queries, _ = q.shape
    if q.stride(1) < q.stride(2):
        return torch.empty((batch, queries, heads, width), dtype=q.dtype, device=CPU).transpose(1, 2)
    return torch.empty((batch, heads, queries, width), dtype=q.dtype, device=CPU)


def _value_width(plan: core.Plan) -> int:
    if plan.v is None:
        raise UserError("this plan has no values, so there is no output; run it with output=False")
    return plan.v.shape[3]


def _check_shapes(plan: core.Plan) -> None:
    """Raise where tensors that were exchanged do not have the shapes that the plan was made for."""
    longest = plan.layout.longest_key if isinstance(plan.layout, Packed) else plan.k.shape[2]
    if (plan.q.shape[2], longest) != (plan.ranges.num_queries, plan.ranges.num_keys):
        raise UserError(
            f"the plan is of {plan.ranges.num_queries} queries and {plan.ranges.num_keys} keys, the tensors have "
            f"{plan.q.shape[2]} and {longest}; lower the mechanism for them"
        )
    for term in plan.terms:
        if isinstance(term, core.Table) and term.bias.shape[-1] < longest:
            raise UserError(f"Table has {term.bias.shape[-1]} columns, and the longest document {longest} keys")


def _add_term(raw: Any, views: Views, plan: core.Plan, term: core.Term) -> None:
    batch, heads, queries, _ = plan.q.shape
    number, tensor = 0.0, views.nothing
    match term:
        case core.Dot(scale=Tensor() as scale) if scale.numel() > 1:
            raw.head_scale = views.floats(scale.flatten(), heads)
            return
        case core.Dot():
            raw.scale = float(term.scale)
            return
        case core.KeyBias():
            tensor = views.floats(term.bias[:, :, None, :], batch, heads, 1, plan.num_keys)
        case core.Slope():
            tensor = views.floats(term.slope, heads)
        case core.Distance():
            tensor = views.floats(term.table.contiguous(), heads, -1)
        case core.Table():
            tensor = views.floats(term.bias, batch, heads, queries, term.bias.shape[3])
        case core.Softcap():
            number = float(term.cap)
    raw.term(NUMBERS[type(term)], number, tensor)
