"""Attention of documents that lie side by side in one packed tensor, each within itself, by the native core."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor

from regard import core
from regard.core.ranges import Ranges
from regard.run.backend import Request, refusal
from regard.run.gradients import wants_grad
from regard.run.layout import Ragged
from regard.run.native import LIMITS, calls
from regard.run.output import Output


def ragged(
    q: Tensor,
    k: Tensor,
    v: Tensor | None,
    layout: Ragged,
    *,
    terms: tuple[core.Term, ...] | None = None,
    ranges: Ranges | None = None,
    softmax: core.Softmax | None = None,
    watch: core.Watch | None = None,
    output: bool = True,
) -> Output:
    """Attention of every document within itself, by the native core, in one go.

    q [Tq,H,Dk], k [Tk,G,Dk], v [Tk,G,Dv], tokens of all documents. terms: default Dot(1/√Dk). ranges: [1, H or 1,
    Tq, R] in each document's own key slots, default `layout.causal()`; so are the columns of a Table. Positions are
    `layout.positions()`. What a watch says per token is packed likewise, [1, tokens]. Gives out [Tq,H,Dv], rows
    [H,Tq], columns [H,Tk], top-k [H,Tq,k] and histograms [S,H,bins].
    """
    query_positions, key_positions = layout.positions()
    if len(query_positions) != q.shape[0] or len(key_positions) != k.shape[0]:
        raise ValueError(
            f"the layout holds {len(query_positions)} queries and {len(key_positions)} keys, the tensors "
            f"{q.shape[0]} and {k.shape[0]}"
        )
    plan = core.Plan(
        q.transpose(0, 1)[None],
        k.transpose(0, 1)[None],
        None if v is None else v.transpose(0, 1)[None],
        query_positions[None],
        key_positions[None],
        terms or (core.Dot(q.shape[-1] ** -0.5),),
        ranges or layout.causal(),
        softmax or core.Softmax(),
    )
    return documents_run(plan, watch, output, calls.Documents(layout.cu_query.tolist(), layout.cu_key.tolist()))


def documents_run(plan: core.Plan, watch: core.Watch | None, output: bool, documents: calls.Documents) -> Output:
    """A plan of packed tokens, checked and walked; its results without the batch of one. Raises ValueError."""
    longest = max((b - a for a, b in pairwise(documents.cu_key)), default=0)
    for term in plan.terms:
        if isinstance(term, core.Table) and term.bias.shape[-1] < longest:
            raise ValueError(f"Table has {term.bias.shape[-1]} columns, and the longest document {longest} keys")
    needs_grad = output and wants_grad(plan)
    request = Request(lambda: plan, watch, needs_grad, len(documents.cu_key) - 1)
    reason = refusal("native", LIMITS, request)
    if reason is not None:
        raise ValueError(f"the native core cannot run this on documents: {reason}")
    return _without_batch(calls.walk(plan, watch, output, documents), watch)


def _without_batch(found: Output, watch: core.Watch | None) -> Output:
    """The same with packed tokens: out [Tq,H,Dv], and the leading 1 of all but histograms gone."""
    statistics = tuple(
        tuple(t[0] for t in s) if isinstance(s, tuple) else s if isinstance(w, core.DistanceHistogram) else s[0]
        for s, w in zip(found.statistics, () if watch is None else watch.statistics, strict=True)
    )
    assert found.row_max is not None and found.row_log_sum is not None
    out = None if found.out is None else found.out[0].transpose(0, 1)
    return Output(out, found.row_max[0], found.row_log_sum[0], statistics)
