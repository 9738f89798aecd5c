"""Random plans of every kind that the closed core allows, as a hypothesis strategy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from regard import core
from regard.core import ranges
from regard.core.ranges import Ranges
from regard.inputs import Inputs, packed_inputs
from regard.run.documents import beside
from regard.run.native import NATIVE
from regard.run.output import Output

LENGTHS = (1, 2, 15, 17, 63, 64, 97, 130, 200)
WIDTHS = (1, 3, 8, 16, 17, 40, 64, 100)
TERMS = ("key bias", "slope", "distance", "table", "wide table", "softcap")
MASKS = ("full", "causal", "window and sinks", "documents", "runs", "per head", "half empty", "nothing")


def mask(kind: str, batch: int, heads: int, queries: int, keys: int) -> Ranges:
    """Ranges of a named kind; the last query stands at the last key."""
    own = torch.arange(queries)[None, None] + keys - queries
    zero = torch.zeros_like(own)
    if kind == "full":
        return ranges.full(queries, keys)
    if kind == "causal":
        return ranges.between(zero, own + 1, keys)
    if kind == "window and sinks":
        return ranges.between(own - 6, own + 1, keys) | ranges.between(zero, (own + 1).clamp(max=2), keys)
    if kind == "documents":
        return ranges.between(own // 13 * 13, own // 13 * 13 + 13, keys)
    if kind == "nothing":
        return ranges.between(zero, zero, keys)
    if kind == "half empty":
        return ranges.between(zero, (own % 2) * (own + 1), keys)
    shape = (batch, heads if kind == "per head" else 1, queries, keys)
    block = 3 if kind == "runs" else 9
    coarse = torch.rand(*shape[:3], -(-keys // block)) < 0.5
    return ranges.from_dense(coarse.repeat_interleave(block, -1)[..., :keys][..., : 60 * block])


def term(kind: str, batch: int, heads: int, queries: int, keys: int) -> core.Term:
    match kind:
        case "key bias":
            return core.KeyBias(torch.randn(batch, heads, keys))
        case "slope":
            return core.Slope(torch.rand(heads) * 0.1)
        case "distance":
            return core.Distance(torch.randn(heads, 2 * 11 + 1))
        case "table":
            return core.Table(torch.randn(batch, 1, queries, keys).transpose(2, 3).contiguous().transpose(2, 3))
        case "wide table":
            return core.Table(torch.randn(1, heads, 1, keys))
        case _:
            return core.Softcap(3.0)


@st.composite
def plans(
    draw: st.DrawFn, dtypes: tuple[torch.dtype, ...] = (torch.float32,), queries: tuple[int, ...] = LENGTHS
) -> core.Plan:
    """Any shape, mask, order of terms, with or without a sink; flat to very peaked scores. queries: how many."""
    torch.manual_seed(draw(st.integers(0, 1 << 30)))
    batch, groups, shared = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 3))
    num_queries, keys = draw(st.sampled_from(queries)), draw(st.sampled_from(LENGTHS))
    width, value_width = draw(st.sampled_from(WIDTHS)), draw(st.sampled_from(WIDTHS))
    dtype, heads = draw(st.sampled_from(dtypes)), groups * shared
    loud = draw(st.sampled_from((0.1, 1.0, 10.0)))
    seen = mask(draw(st.sampled_from(MASKS)), batch, heads, num_queries, keys)
    if seen.num_keys != keys:
        seen = Ranges(seen.start, seen.stop, keys)
    q = (loud * torch.randn(batch, num_queries, heads, width)).to(dtype).transpose(1, 2)
    k, v = (torch.randn(batch, groups, keys, w).to(dtype) for w in (width, value_width))
    kinds = draw(st.lists(st.sampled_from(TERMS), max_size=3, unique=True))
    scale: float | Tensor = torch.rand(heads) if draw(st.booleans()) else width**-0.5
    return core.Plan(
        q,
        k,
        v,
        (torch.arange(num_queries) + keys - num_queries).expand(batch, -1) + 7,
        torch.arange(keys).expand(batch, -1) + 7,
        (core.Dot(scale), *(term(kind, batch, heads, num_queries, keys) for kind in kinds)),
        seen,
        core.Softmax(torch.randn(heads) if draw(st.booleans()) else None),
    )


def simple(
    queries: int = 100,
    keys: int = 100,
    heads: int = 4,
    groups: int = 2,
    width: int = 32,
    batch: int = 1,
    seed: int = 0,
    kind: str = "causal",
) -> core.Plan:
    """A plain causal plan."""
    torch.manual_seed(seed)
    q = torch.randn(batch, heads, queries, width)
    k, v = (torch.randn(batch, groups, keys, width) for _ in range(2))
    places = torch.arange(keys).expand(batch, -1)
    seen = mask(kind, batch, heads, queries, keys)
    dot, softmax = core.Dot(width**-0.5), core.Softmax()
    return core.Plan(q, k, v, places[:, keys - queries :], places, (dot,), seen, softmax)


def everything(plan: core.Plan) -> core.Watch:
    """Every statistic there is."""
    batch, queries, keys = plan.q.shape[0], plan.q.shape[2], plan.k.shape[2]
    labels = torch.randint(0, 5, (batch, queries), dtype=torch.int32), torch.randint(0, 5, (batch, keys)).int()
    statistics = (
        core.RowEntropy(),
        core.RowMax(),
        core.RowSum(torch.rand(1, keys)),
        core.RowSum(torch.ones(batch, keys)),
        core.RowMatch(*labels),
        core.RowMatch(plan.query_positions.int() - 1, plan.key_positions.int()),
        core.RowDistance(),
        core.TopK(8),
        core.ColumnMass(),
        core.DistanceHistogram(6),
        core.Pool(4, 5, 3),
    )
    return core.Watch(statistics)


# ---- packed layouts, their results without the batch of one ---------------------------------------------------------


def ragged(q: Tensor, k: Tensor, v: Tensor | None, layout: core.Ragged, **more: Any) -> Output:
    """The native core on documents: out [Tq,H,Dv], rows [H,Tq], columns [H,Tk], histograms [documents,H,bins]."""
    return _packed(packed_inputs(q, k, v, layout), **more)


def paged(q: Tensor, key_pages: Tensor, value_pages: Tensor, layout: core.Paged, **more: Any) -> Output:
    """The same on pages."""
    return _packed(packed_inputs(q, key_pages, value_pages, layout), **more)


def paged_decode(
    q: Tensor,
    key_pages: Tensor,
    value_pages: Tensor,
    layout: core.Paged,
    starts: Tensor | None = None,
    sink: Tensor | None = None,
) -> Output:
    """One query per sequence, in pages: out [S,H,Dv], row_max and row_log_sum [S,H]."""
    seen = layout.causal()
    if starts is not None:
        seen = Ranges(starts.to(torch.int32)[None, None, :, None], seen.stop, seen.num_keys)
    found = paged(q, key_pages, value_pages, layout, ranges=seen, softmax=core.Softmax(sink))
    assert found.row_max is not None and found.row_log_sum is not None
    return Output(found.out, found.row_max.T, found.row_log_sum.T)


def packed_plan(x: Inputs, *, terms: Any = None, ranges: Ranges | None = None, softmax: Any = None) -> core.Plan:
    """A plan of packed inputs in core records, causal by default."""
    assert isinstance(x.layout, core.Ragged | core.Paged)
    return core.Plan(
        x.q,
        x.k,
        x.v,
        x.query_positions,
        x.key_positions,
        terms or (core.Dot(x.q.shape[-1] ** -0.5),),
        ranges or x.layout.causal(),
        softmax or core.Softmax(),
        x.layout,
    )


def _packed(x: Inputs, watch: core.Watch | None = None, output: bool = True, **more: Any) -> Output:
    found = NATIVE.run(packed_plan(x, **more), watch, output)
    statistics = tuple(
        tuple(t[0] for t in s) if isinstance(s, tuple) else s if isinstance(w, core.DistanceHistogram) else s[0]
        for s, w in zip(found.statistics, () if watch is None else watch.statistics, strict=True)
    )
    assert found.row_max is not None and found.row_log_sum is not None
    out = None if found.out is None else found.out[0].transpose(0, 1)
    return Output(out, found.row_max[0], found.row_log_sum[0], statistics)


def beside_pages(plan: core.Plan) -> core.Plan:
    """The same call with keys and values gathered from their pages."""
    layout = plan.layout
    if not isinstance(layout, core.Paged):
        return plan
    k, v = beside(layout, plan.k, plan.v)
    return replace(plan, k=k, v=v, layout=core.Ragged(layout.cu_query, layout.cu_key))
