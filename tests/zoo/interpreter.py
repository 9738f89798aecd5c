"""A dense interpreter of core.Plan: the records' meaning as core.py states it, written once more, plainly."""

from __future__ import annotations

import torch
from torch import Tensor

from regard import core


def scores(plan: core.Plan) -> Tensor:
    """[B,H,Tq,Tk] after all terms."""
    per_group = plan.q.shape[1] // plan.k.shape[1]
    k = plan.k.repeat_interleave(per_group, 1)
    ahead = plan.key_positions[:, None, None, :] - plan.query_positions[:, None, :, None]
    s = torch.zeros(*plan.q.shape[:3], k.shape[2], dtype=plan.q.dtype)
    for term in plan.terms:
        match term:
            case core.Dot(scale):
                c = scale[None, :, None, None] if isinstance(scale, Tensor) else scale
                s = s + c * torch.einsum("bhid,bhjd->bhij", plan.q, k)
            case core.KeyBias(bias):
                s = s + bias[:, :, None]
            case core.Slope(slope):
                s = s + slope[None, :, None, None] * ahead
            case core.Distance(table):
                reach = (table.shape[1] - 1) // 2
                s = s + torch.stack([row[ahead[:, 0].clamp(-reach, reach) + reach] for row in table], 1)
            case core.Table(bias):
                s = s + bias
            case core.Softcap(cap):
                s = cap * torch.tanh(s / cap)
    return s


def run(plan: core.Plan) -> tuple[Tensor | None, Tensor]:
    """Output and weights."""
    start, stop = plan.ranges.start, plan.ranges.stop
    key = torch.arange(plan.k.shape[2])
    seen = ((key >= start[..., None]) & (key < stop[..., None])).any(3)
    s = scores(plan).masked_fill(~seen, -torch.inf)
    sink = None if plan.softmax.sink is None else plan.softmax.sink[None, :, None, None].expand(*s.shape[:3], 1)
    padded = s if sink is None else torch.cat([s, sink.to(s.dtype)], -1)
    a = padded.softmax(-1).nan_to_num(0.0)[..., : s.shape[-1]]
    if plan.v is None:
        return None, a
    v = plan.v.repeat_interleave(plan.q.shape[1] // plan.v.shape[1], 1)
    return a @ v, a
