"""Exact weights of a small plan whose rows' maxima and sums over all their keys are known: two products of its size.

A fused backend walks the plan with the identity for values, 128 keys at a time. What it hands out are the weights
b_ij = e^{s_ij - m'_i - l'_i} among those keys alone, and its own m', l'; the weight is

    a_ij = b_ij e^{(m'_i - m_i) + (l'_i - l_i)}.

So scores are computed by the arithmetic that made the states. Without a backend that can, torch computes it in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from regard import core
from regard.run.backend import Backend

TILE = 128
PAIRS = 1 << 20


def weights_of(plan: core.Plan, row_max: Tensor, row_log_sum: Tensor, walks: Sequence[Backend]) -> Tensor:
    """float32 [rows, keys] of a plan of one sequence and one head, without values or sink; states [rows]."""
    rows, keys = plan.q.shape[2], plan.k.shape[2]
    weights = torch.empty((rows, keys), device=plan.q.device)
    for begin in range(0, keys, TILE):
        part = slice(begin, min(begin + TILE, keys))
        weights[:, part] = _tile(_keys(plan, part), row_max.double(), row_log_sum.double(), walks)
    return weights


def row_state(plan: core.Plan, sink: Tensor | None, walks: Sequence[Backend]) -> tuple[Tensor, Tensor]:
    """The rows' maxima and log-sums, float32 [rows], of a plan of one sequence and one head."""
    plan = replace(plan, softmax=core.Softmax(sink))
    walk = _able(plan, walks)
    if walk is not None:
        output = walk.run(plan, None, output=False)
        assert output.row_max is not None and output.row_log_sum is not None
        return output.row_max[0, 0], output.row_log_sum[0, 0]
    step = max(1, PAIRS // max(1, plan.k.shape[2]))
    parts = [
        _dense_state(rows_of(plan, slice(i, min(i + step, plan.q.shape[2]))), sink)
        for i in range(0, plan.q.shape[2], step)
    ]
    row_max, row_log_sum = (torch.cat(part).float() for part in zip(*parts, strict=True))
    return row_max, row_log_sum


def _tile(plan: core.Plan, row_max: Tensor, row_log_sum: Tensor, walks: Sequence[Backend]) -> Tensor:
    keys = plan.k.shape[2]
    identity = torch.eye(keys, dtype=plan.k.dtype, device=plan.k.device)[None, None]
    whole = replace(plan, v=identity)
    walk = _able(whole, walks)
    if walk is None:
        scores = dense_scores(plan)
        return (scores - row_max[:, None] - row_log_sum[:, None]).exp().nan_to_num(0.0).float()
    output = walk.run(whole, None, output=True)
    assert output.out is not None and output.row_max is not None and output.row_log_sum is not None
    apart = (output.row_max[0, 0].double() - row_max) + (output.row_log_sum[0, 0].double() - row_log_sum)
    return output.out[0, 0].float() * apart.exp().nan_to_num(0.0)[:, None].float()


def _able(plan: core.Plan, walks: Sequence[Backend]) -> Backend | None:
    return next((walk for walk in walks if walk.refuses(plan, None, False) is None), None)


def _keys(plan: core.Plan, part: slice) -> core.Plan:
    """The plan on some of its keys."""
    terms: list[core.Term] = []
    for term in plan.terms:
        cut = isinstance(term, core.KeyBias | core.Table)
        terms.append(type(term)(term.bias[..., part]) if cut else term)  # type: ignore[union-attr, arg-type]
    start, stop = (t.clamp(part.start, part.stop) - part.start for t in (plan.ranges.start, plan.ranges.stop))
    return replace(
        plan,
        k=plan.k[:, :, part],
        key_positions=plan.key_positions[:, part],
        terms=tuple(terms),
        ranges=core.ranges.Ranges(start, stop, part.stop - part.start),
    )


def rows_of(plan: core.Plan, part: slice) -> core.Plan:
    """The plan on some of its rows."""
    terms: list[core.Term] = []
    for term in plan.terms:
        cut = isinstance(term, core.Table) and term.bias.shape[2] > 1
        terms.append(core.Table(term.bias[:, :, part]) if cut else term)  # type: ignore[union-attr]
    return replace(
        plan,
        q=plan.q[:, :, part],
        query_positions=plan.query_positions[:, part],
        terms=tuple(terms),
        ranges=plan.ranges.rows(part.start, part.stop),
    )


# ---- in torch -------------------------------------------------------------------------------------------------------


def dense_scores(plan: core.Plan, dtype: torch.dtype = torch.float64) -> Tensor:
    """[rows, keys] of a plan of one sequence and one head, in float64 or float32; -inf where a key is not visible."""
    scores = plan.q[0, 0].to(dtype) @ plan.k[0, 0].to(dtype).T
    for term in plan.terms:
        match term:
            case core.Dot(scale=scale):
                scores = scores * float(scale)
            case core.KeyBias(bias=bias):
                scores = scores + bias[0, 0].to(dtype)
            case core.Slope(slope=slope):
                scores = scores + float(slope) * _apart(plan)
            case core.Distance(table=table):
                reach = (table.shape[1] - 1) // 2
                scores = scores + table[0].to(dtype)[_apart(plan).clamp(-reach, reach) + reach]
            case core.Table(bias=bias):
                scores = scores + bias[0, 0].to(dtype)
            case core.Softcap(cap=cap):
                scores = cap * torch.tanh(scores / cap)
    return scores if plan.ranges.is_full() else scores.masked_fill(~plan.ranges.dense()[0, 0], -torch.inf)


def _apart(plan: core.Plan) -> Tensor:
    """p_j - p_i, int64 [rows, keys]."""
    return plan.key_positions[0][None, :] - plan.query_positions[0][:, None]


def _dense_state(plan: core.Plan, sink: Tensor | None) -> tuple[Tensor, Tensor]:
    scores = dense_scores(plan)
    row_max = scores.amax(-1)
    total = (scores - row_max[:, None]).exp().nan_to_num(0.0).sum(-1)
    if sink is not None:
        total = total + (float(sink) - row_max).exp().nan_to_num(0.0, posinf=0.0)
    return row_max, total.log().where(total > 0, 0.0)
