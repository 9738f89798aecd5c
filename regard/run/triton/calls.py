"""From a Plan to kernel launches: how tensors are handed over, where results go, and the gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from regard import core
from regard.errors import UserError
from regard.run.limits import readers_of_positions
from regard.run.output import Output
from regard.run.triton import arguments, visible
from regard.run.triton.arguments import Call, Line, Term, Tiles, line_of_tokens, matrix
from regard.run.triton.shapes import FORWARD, Shape, Table, padded, shape_for


@dataclass(frozen=True, eq=False)
class Prepared:
    """A plan as kernels take it: addresses and numbers, and what is fixed when a kernel is compiled."""

    plan: core.Plan
    call: Call
    kinds: tuple[int, ...]

    @cached_property
    def is_listed(self) -> bool:
        """Whether rows have several intervals, so that the host lists the tiles to visit."""
        return self.call.intervals != 1

    @property
    def widths(self) -> dict[str, int]:
        """The widths that kernels are compiled for."""
        width = self.plan.q.shape[-1]
        value = 16 if self.plan.v is None else self.plan.v.shape[-1]
        return {"WIDTH": width, "PADDED": padded(width), "VALUE_WIDTH": value, "VALUE_PADDED": padded(value)}

    def shape(self, table: Table) -> Shape:
        """This call's tile shape from a table."""
        widths = self.widths
        return shape_for(table, max(widths["PADDED"], widths["VALUE_PADDED"]), self.plan.q.dtype)

    def tiles(self, shape: Shape, lead: int = 0) -> Tiles:
        """What blocks of rows visit, if it must be listed."""
        if not self.is_listed:
            return visible.NO_TILES
        return visible.listed(visible.classes(self.plan.ranges, shape.rows, shape.keys, lead))


def prepare(plan: core.Plan, watch: core.Watch | None = None) -> Prepared:
    """Addresses, strides and numbers of a plan; nothing of q, k or v is copied."""
    plan = replace(plan, q=plan.q.detach(), k=plan.k.detach(), v=None if plan.v is None else plan.v.detach())
    batch, heads, queries, _ = plan.q.shape
    start, stop = (t.to(torch.int32).expand(batch, heads, -1, -1) for t in (plan.ranges.start, plan.ranges.stop))
    kinds, terms, unit = _terms(plan)
    unread = (Line(None, 0, 0, 0),) * 2
    query_positions, key_positions = positions_of(plan) if readers_of_positions(plan, watch) else unread
    call = Call(
        matrix(plan.q),
        matrix(plan.k),
        matrix(plan.v),
        matrix(start),
        matrix(stop),
        query_positions,
        key_positions,
        terms,
        heads,
        heads // plan.k.shape[1],
        queries,
        plan.k.shape[2],
        start.shape[3],
        unit,
        unit * math.log2(math.e),
    )
    return Prepared(plan, call, kinds)


def positions_of(plan: core.Plan) -> tuple[Line, Line]:
    """Query and key positions int32, counted from the smallest of all."""
    both = [p.to(torch.int64) for p in (plan.query_positions, plan.key_positions)]
    origin = torch.minimum(*(p.min() if p.numel() else p.new_zeros(()) for p in both))
    query, key = (line_of_tokens((p - origin).to(torch.int32)) for p in both)
    return query, key


def _terms(plan: core.Plan) -> tuple[tuple[int, ...], tuple[Term, ...], float]:
    """(kinds, terms, unit). A lone positive scale is the unit of the scores; otherwise it is the first term."""
    first = plan.terms[0]
    assert isinstance(first, core.Dot)
    scale = first.scale
    if isinstance(scale, Tensor) and scale.numel() == 1 and not scale.is_cuda:
        scale = float(scale)
    if len(plan.terms) == 1 and not isinstance(scale, Tensor) and 0 < scale < math.inf:
        return (), (), float(scale)
    found = [_term(plan, core.Dot(scale)), *(_term(plan, term) for term in plan.terms[1:])]
    return tuple(kind for kind, _ in found), tuple(term for _, term in found), 1.0


def _term(plan: core.Plan, term: core.Term) -> tuple[int, Term]:
    batch, heads, queries, _ = plan.q.shape
    keys = plan.k.shape[2]

    def number(kind: int, value: float) -> tuple[int, Term]:
        return kind, Term(None, 0, 0, 0, 0, float(value), 0)

    def per_head(kind: int, tensor: Tensor) -> tuple[int, Term]:
        values = tensor.detach().float().flatten().expand(heads)
        return kind, Term(values, 0, values.stride(0), 0, 0, 0.0, 0)

    def of_pairs(bias: Tensor) -> Term:
        at_batch, at_head, at_row, at_column = bias.stride()
        return Term(bias, at_batch, at_head, at_row, at_column, 0.0, 0)

    match term:
        case core.Dot(scale=Tensor() as scale):
            return per_head(arguments.HEAD_SCALE, scale)
        case core.Dot(scale=float() | int() as scale):
            return number(arguments.SCALE, scale)
        case core.KeyBias():
            bias = term.bias.detach()[:, :, None, :].expand(batch, heads, 1, keys)
            return arguments.KEY_BIAS, of_pairs(bias)
        case core.Slope():
            return per_head(arguments.SLOPE, term.slope)
        case core.Distance():
            table = term.table.detach().contiguous().expand(heads, -1)
            return arguments.DISTANCE, Term(table, 0, table.stride(0), 0, 0, 0.0, table.shape[1] // 2)
        case core.Table():
            bias = term.bias.detach().expand(batch, heads, queries, keys)
            return arguments.TABLE, of_pairs(bias)
        case core.Softcap():
            return number(arguments.SOFTCAP, term.cap)
    raise AssertionError(f"{type(term).__name__} was not refused")


def forward(ready: Prepared, output: bool) -> tuple[Tensor | None, Tensor, Tensor]:
    """(out or None, row_max, row_log_sum) of one walk."""
    from regard.run.triton.kernels.forward import forward_kernel

    plan, call = ready.plan, ready.call
    batch, heads, queries, _ = plan.q.shape
    out = None
    if output:
        if plan.v is None:
            raise UserError("this plan has no values, so there is no output; run it with output=False")
        out = empty_like_rows(plan.q, plan.v.shape[-1])
    row_max, row_log_sum = (plan.q.new_empty((batch, heads, queries), dtype=torch.float32) for _ in range(2))
    shape = ready.shape(FORWARD)
    num_blocks = -(-queries // shape.rows)
    if num_blocks * batch * heads:
        sink = plan.softmax.sink
        forward_kernel[(num_blocks * batch * heads,)](
            call,
            ready.tiles(shape),
            matrix(out),
            row_max,
            row_log_sum,
            None if sink is None else sink.detach().float().expand(heads).contiguous(),
            num_blocks,
            TERMS=ready.kinds,
            LISTED=ready.is_listed,
            OUTPUT=output,
            SINK=sink is not None,
            **ready.widths,
            **launch(shape),
        )
    return out, row_max, row_log_sum


def launch(shape: Shape) -> dict[str, Any]:
    """A tile shape as kernels are told of it."""
    return {"BLOCK_M": shape.rows, "BLOCK_N": shape.keys, "num_warps": shape.warps, "num_stages": shape.stages}


def empty_like_rows(q: Tensor, width: int) -> Tensor:
    """[B,H,Tq,width] in q's type and place, its heads and tokens laid out in memory as q's are."""
    batch, heads, queries, _ = q.shape
    if q.stride(1) < q.stride(2):
        return q.new_empty((batch, queries, heads, width)).transpose(1, 2)
    return q.new_empty((batch, heads, queries, width))


def walk(plan: core.Plan, watch: core.Watch | None, output: bool) -> Output:
    """The output if asked for, the rows' state, and what each watched record gives."""
    from regard.run.triton.watch import statistics

    ready = prepare(plan, watch)
    out, row_max, row_log_sum = forward(ready, output)
    found = () if watch is None else statistics(ready, watch, row_max, row_log_sum)
    return Output(out, row_max, row_log_sum, found)
