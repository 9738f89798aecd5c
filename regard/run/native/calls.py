"""From a Plan to one native call: how tensors are handed over, where results go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from regard import core
from regard.run.native.extension import extension
from regard.run.output import Output

FLOATS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2, torch.float64: 5}
TYPES = FLOATS | {torch.int32: 3, torch.int64: 4, torch.uint8: 6, torch.bool: 6}
NO_CELL = (0, 0, 0)


class Call:
    """A native call under construction; keeps every tensor that it points to alive."""

    def __init__(self) -> None:
        self.native: Any = extension()
        self.raw = self.native.Call()
        self.alive: list[Tensor] = []

    def view(self, tensor: Tensor | None) -> Any:
        """The tensor's address, type, shape and strides, as it lies."""
        if tensor is None:
            return self.native.View()
        self.alive.append(tensor)
        return self.native.view(tensor.data_ptr(), TYPES[tensor.dtype], list(tensor.shape), list(tensor.stride()))

    def float_view(self, tensor: Tensor | None, *shape: int) -> Any:
        """The same as float32, repeated to a shape without copying."""
        if tensor is None:
            return self.view(None)
        floats = tensor.detach().float()
        return self.view(floats.expand(shape) if shape else floats)


def gradients(
    plan: core.Plan, out: Tensor, row_max: Tensor, row_log_sum: Tensor, grad_out: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of q, k and v, in their types, from the output's."""
    assert plan.v is not None
    batch, heads, queries, width = plan.q.shape
    groups, keys, value_width = plan.k.shape[1], plan.k.shape[2], plan.v.shape[3]
    call = Call()
    fill(call, plan, True)
    grad_q = torch.zeros((batch, heads, queries, width))
    grad_k = torch.zeros((batch, heads, keys, -(-width // 16) * 16))
    grad_v = torch.zeros((batch, heads, keys, -(-value_width // 16) * 16))
    raw = call.raw
    raw.out, raw.row_max, raw.row_log_sum = call.view(out.detach()), call.view(row_max), call.view(row_log_sum)
    raw.grad_out = call.view(unit_stride(grad_out.to(out.dtype)))
    raw.grad_q, raw.grad_k, raw.grad_v = call.view(grad_q), call.view(grad_k), call.view(grad_v)
    raw.backward(torch.get_num_threads())
    per_group = (batch, groups, heads // groups, keys, -1)
    grad_k, grad_v = (g.view(per_group).sum(2) if heads != groups else g for g in (grad_k, grad_v))
    of_type = plan.q.dtype
    return grad_q.to(of_type), grad_k[..., :width].to(of_type), grad_v[..., :value_width].to(of_type)


@dataclass(frozen=True, eq=False)
class Documents:
    """Tokens are those of documents side by side: document s holds queries cu_query[s] … and keys cu_key[s] ….

    pages: (key pages, value pages, block table) where keys and values live in pages; the plan's k and v then only say
    a shape and are not read.
    """

    cu_query: list[int]
    cu_key: list[int]
    pages: tuple[Tensor, Tensor, Tensor] | None = None


def walk(plan: core.Plan, watch: core.Watch | None, output: bool, documents: Documents | None = None) -> Output:
    """Allocate results, call, hand them back."""
    batch, heads, queries, _ = plan.q.shape
    call = Call()
    out = None
    if output:
        if plan.v is None:
            raise ValueError("this plan has no values, so there is no output; run it with output=False")
        out = empty_like_rows(plan.q, plan.v.shape[-1])
    row_max = torch.empty((batch, heads, queries))
    row_log_sum = torch.empty((batch, heads, queries))
    fill(call, plan, output)
    raw = call.raw
    raw.out, raw.row_max, raw.row_log_sum = call.view(out), call.view(row_max), call.view(row_log_sum)
    if documents is not None and documents.pages is not None:
        raw.k, raw.v, raw.block_table = (call.view(pages) for pages in documents.pages)
    histograms = batch if documents is None else len(documents.cu_query) - 1
    statistics = () if watch is None else add_watch(call, plan, watch, histograms)
    if documents is None:
        raw.forward(torch.get_num_threads())
    else:
        raw.ragged(documents.cu_query, documents.cu_key, torch.get_num_threads())
    return Output(out, row_max, row_log_sum, statistics)


def empty_like_rows(q: Tensor, width: int) -> Tensor:
    """[B,H,Tq,width] in q's type, its heads and tokens laid out in memory as q's are."""
    batch, heads, queries, _ = q.shape
    if q.stride(1) < q.stride(2):
        return torch.empty((batch, queries, heads, width), dtype=q.dtype).transpose(1, 2)
    return torch.empty((batch, heads, queries, width), dtype=q.dtype)


def fill(call: Call, plan: core.Plan, output: bool) -> None:
    """The inputs of a plan."""
    raw = call.raw
    batch, heads, queries, _ = plan.q.shape
    raw.q, raw.k = call.view(plan.q.detach()), call.view(plan.k.detach())
    if output and plan.v is not None:
        raw.v = call.view(plan.v.detach())
    raw.query_positions = call.view(plan.query_positions.to(torch.int64))
    raw.key_positions = call.view(unit_stride(plan.key_positions.to(torch.int64)))
    shape = (batch, heads, queries, plan.ranges.start.shape[3])
    raw.start = call.view(plan.ranges.start.to(torch.int32).expand(shape))
    raw.stop = call.view(plan.ranges.stop.to(torch.int32).expand(shape))
    raw.sink = call.float_view(plan.softmax.sink, heads)
    for term in plan.terms:
        _add_term(call, plan, term)


def unit_stride(tensor: Tensor) -> Tensor:
    """The tensor with its last dimension contiguous; what is repeated along others stays one slice."""
    return tensor if tensor.stride(-1) == 1 or tensor.shape[-1] <= 1 else tensor.contiguous()


def _add_term(call: Call, plan: core.Plan, term: core.Term) -> None:
    raw = call.raw
    nothing = call.native.View()
    batch, heads, queries, _ = plan.q.shape
    keys = plan.k.shape[2]
    match term:
        case core.Dot(scale=Tensor() as scale) if scale.numel() > 1:
            raw.head_scale = call.float_view(scale.flatten(), heads)
        case core.Dot():
            raw.scale = float(term.scale)
        case core.KeyBias():
            raw.term(0, 0.0, call.float_view(term.bias[:, :, None, :], batch, heads, 1, keys))
        case core.Slope():
            raw.term(1, 0.0, call.float_view(term.slope, heads))
        case core.Distance():
            raw.term(2, 0.0, call.float_view(term.table.contiguous(), heads, -1))
        case core.Table():
            raw.term(3, 0.0, call.float_view(term.bias, batch, heads, queries, term.bias.shape[3]))
        case core.Softcap():
            raw.term(4, float(term.cap), nothing)


def add_watch(
    call: Call, plan: core.Plan, watch: core.Watch, histograms: int
) -> tuple[Tensor | tuple[Tensor, ...], ...]:
    """Result tensors of every watched record, made known to the call; so many histograms per head."""
    batch, heads, queries, _ = plan.q.shape
    keys = plan.k.shape[2]
    if watch.key_scale is not None:
        call.raw.key_scale = call.float_view(watch.key_scale, batch, heads, keys)
    if watch.counted is not None:
        call.raw.counted = call.view(watch.counted.to(torch.bool).expand(batch, queries))
    return tuple(_add_statistic(call, plan, wanted, histograms) for wanted in watch.statistics)


def _add_statistic(
    call: Call, plan: core.Plan, wanted: core.CoreStatistic, histograms: int
) -> Tensor | tuple[Tensor, ...]:
    batch, heads, queries, _ = plan.q.shape
    keys = plan.k.shape[2]
    rows = (batch, heads, queries)
    nothing = call.native.View()

    def add(kind: int, result: Tensor, size: int = 0, first: Any = nothing, second: Any = nothing) -> Tensor:
        call.raw.statistic(kind, size, NO_CELL, first, second, call.view(result), nothing)
        return result

    def labels(tensor: Tensor, length: int) -> Any:
        return call.view(unit_stride(tensor.to(torch.int32)).expand(batch, length))

    match wanted:
        case core.RowEntropy():
            return add(0, torch.empty(rows))
        case core.RowMax():
            return add(1, torch.empty(rows))
        case core.RowSum():
            return add(2, torch.empty(rows), first=call.float_view(unit_stride(wanted.feature), batch, keys))
        case core.RowMatch():
            own, other = labels(wanted.query_labels, queries), labels(wanted.key_labels, keys)
            return add(3, torch.empty(rows), first=own, second=other)
        case core.RowDistance():
            return add(4, torch.empty(rows))
        case core.ColumnMass():
            return add(6, torch.zeros((batch, heads, keys), dtype=torch.float64))
        case core.DistanceHistogram():
            return add(7, torch.zeros((histograms, heads, wanted.bins), dtype=torch.float64), size=wanted.bins)
        case core.TopK():
            weights = torch.empty((*rows, wanted.k))
            found = torch.empty((*rows, wanted.k), dtype=torch.int32)
            call.raw.statistic(5, wanted.k, NO_CELL, nothing, nothing, call.view(weights), call.view(found))
            return weights, found
        case core.Pool():
            shape = (batch, heads, *pool_shape(wanted, queries, keys))
            total, most = torch.zeros(shape, dtype=torch.float64), torch.zeros(shape)
            cell = (wanted.query_shift, wanted.key_shift, wanted.query_offset)
            call.raw.statistic(8, 0, cell, nothing, nothing, call.view(total), call.view(most))
            return total, most


def pool_shape(pool: core.Pool, queries: int, keys: int) -> tuple[int, int]:
    """Cells per side of a map: rows from the offset's cell on, keys from slot 0."""
    first = pool.query_offset >> pool.query_shift
    rows = -(-(pool.query_offset + queries) // (1 << pool.query_shift)) - first
    return rows, -(-keys // (1 << pool.key_shift))
