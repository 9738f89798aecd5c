"""The closed core, dense and in float64: what the fast backends must give. It shares no code with them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from regard import core


@dataclass(frozen=True)
class Dense:
    """weights [B,H,Tq,Tk], out [B,H,Tq,Dv], lse [B,H,Tq], -inf for an empty row; size [B,H,Tq,1]: the score scale σ."""

    weights: Tensor
    out: Tensor | None
    lse: Tensor
    size: Tensor


def _per_head(x: Tensor) -> Tensor:
    return x.double()[None, :, None, None]


def dense(plan: core.Plan) -> Dense:
    """The plan in float64. What no row sees is replaced by zeros first, so that NaN there cannot leak."""
    batch, heads, queries, _ = plan.q.shape
    shared, keys = heads // plan.k.shape[1], plan.k.shape[2]
    visible = plan.ranges.dense().expand(batch, heads, queries, keys)
    used = visible.any(2).unflatten(1, (plan.k.shape[1], shared)).any(2)[..., None]
    q = plan.q.double()
    k = torch.where(used, plan.k.double(), 0).repeat_interleave(shared, 1)
    ahead = (plan.key_positions[:, None, None, :] - plan.query_positions[:, None, :, None]).double()
    scores = torch.zeros(())
    size = torch.ones(batch, heads, queries, 1, dtype=torch.float64)
    for term in plan.terms:
        match term:
            case core.Dot():
                scale = _per_head(term.scale) if isinstance(term.scale, Tensor) else term.scale
                scores = q @ k.transpose(-1, -2) * scale
                size = size + q.norm(dim=-1, keepdim=True) * k.norm(dim=-1).amax(-1)[..., None, None] * abs(scale)
            case core.KeyBias():
                scores = scores + term.bias.double()[:, :, None, :]
            case core.Slope():
                scores = scores + _per_head(term.slope) * ahead
            case core.Distance():
                reach = term.table.shape[1] // 2
                index = ahead.long().clamp(-reach, reach) + reach
                scores = scores + term.table.double().expand(heads, -1)[:, index[:, 0]].transpose(0, 1)
            case core.Table():
                scores = scores + term.bias.double()
            case core.Softcap():
                scores = term.cap * torch.tanh(scores / term.cap)
        if not isinstance(term, core.Dot):
            size = size + scores.abs().amax((-1), keepdim=True)
    scores = scores.masked_fill(~visible, -torch.inf)
    sink = plan.softmax.sink
    if sink is not None:
        scores = torch.cat([scores, _per_head(sink).expand(batch, heads, queries, 1)], -1)
    seen = visible.any(-1, keepdim=True)
    lse = torch.where(seen, scores.logsumexp(-1, keepdim=True), -torch.inf)
    weights = torch.where(visible, (scores[..., :keys] - torch.where(seen, lse, 0)).exp(), 0)
    if plan.v is None:
        return Dense(weights, None, lse[..., 0], size)
    v = torch.where(used, plan.v.double(), 0).repeat_interleave(shared, 1)
    return Dense(weights, weights @ v, lse[..., 0], size)


def statistic(wanted: core.CoreStatistic, plan: core.Plan, watch: core.Watch, a: Tensor) -> Tensor | tuple[Tensor, ...]:
    """What a record documents, from weights [B,H,Tq,Tk]."""
    if watch.counted is not None:
        a = a * watch.counted[:, None, :, None]
    if watch.key_scale is not None:
        a = a * watch.key_scale.double()[:, :, None, :]
    distance = (plan.query_positions[:, :, None] - plan.key_positions[:, None, :]).abs()[:, None]
    match wanted:
        case core.RowEntropy():
            return torch.special.entr(a).sum(-1)
        case core.RowMax():
            return a.amax(-1)
        case core.RowSum():
            return (a * wanted.feature.double()[:, None, None]).sum(-1)
        case core.RowMatch():
            return (a * (wanted.query_labels[:, None, :, None] == wanted.key_labels[:, None, None])).sum(-1)
        case core.RowDistance():
            return (a * distance).sum(-1)
        case core.TopK():
            return _strongest(a, wanted.k)
        case core.ColumnMass():
            return a.sum(2)
        case core.DistanceHistogram():
            index = torch.where(distance > 0, distance.clamp(min=1).double().log2().floor().long() + 1, 0)
            index = index.clamp(max=wanted.bins - 1).expand(a.shape)
            found = torch.zeros(*a.shape[:2], wanted.bins, dtype=torch.float64)
            return found.scatter_add_(-1, index.flatten(2), a.flatten(2))
        case core.Pool():
            return _pooled(a, wanted)


def _strongest(a: Tensor, k: int) -> tuple[Tensor, Tensor]:
    best = a.sort(dim=-1, descending=True, stable=True)
    short = max(0, k - a.shape[-1])
    weights = torch.nn.functional.pad(best.values[..., :k], (0, short))
    keys = torch.nn.functional.pad(best.indices[..., :k], (0, short), value=-1)
    return weights, keys.where(weights > 0, -1)


def _pooled(a: Tensor, pool: core.Pool) -> tuple[Tensor, Tensor]:
    rows, columns = 1 << pool.query_shift, 1 << pool.key_shift
    before = pool.query_offset % rows
    pads = (0, -a.shape[3] % columns, before, -(a.shape[2] + before) % rows)
    cells = torch.nn.functional.pad(a, pads).unflatten(3, (-1, columns)).unflatten(2, (-1, rows))
    return cells.sum((3, 5)), cells.amax((3, 5))
