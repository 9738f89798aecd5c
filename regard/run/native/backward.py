"""Gradients of q, k and v from the output's, by the extension."""

from __future__ import annotations

import torch
from torch import Tensor

from regard import core
from regard.run.native.compiled import call_of
from regard.run.native.views import Views, unit_stride


def gradients(
    plan: core.Plan, out: Tensor, row_max: Tensor, row_log_sum: Tensor, grad_out: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of q, k and v, in their types, from the output's."""
    assert plan.v is not None
    batch, heads, queries, width = plan.q.shape
    groups, keys, value_width = plan.k.shape[1], plan.k.shape[2], plan.v.shape[3]
    views = Views()
    raw = call_of(plan, views)
    of_q = torch.zeros((batch, heads, queries, width), device="cpu")
    of_k = torch.zeros((batch, heads, keys, -(-width // 16) * 16), device="cpu")
    of_v = torch.zeros((batch, heads, keys, -(-value_width // 16) * 16), device="cpu")
    raw.out, raw.row_max, raw.row_log_sum = views.view(out.detach()), views.view(row_max), views.view(row_log_sum)
    raw.grad_out = views.view(unit_stride(grad_out.to(out.dtype)))
    raw.grad_q, raw.grad_k, raw.grad_v = views.view(of_q), views.view(of_k), views.view(of_v)
    raw.backward(torch.get_num_threads())
    if heads != groups:
        of_k, of_v = (g.unflatten(1, (groups, heads // groups)).sum(2) for g in (of_k, of_v))
    of_type = plan.q.dtype
    return of_q.to(of_type), of_k[..., :width].to(of_type), of_v[..., :value_width].to(of_type)
