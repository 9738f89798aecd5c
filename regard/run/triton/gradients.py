"""Gradients of q, k and v from the output's, by kernels that compute the weights anew."""

from __future__ import annotations

import torch
from torch import Tensor

from regard import core
from regard.run.triton import visible
from regard.run.triton.arguments import matrix
from regard.run.triton.calls import launch, prepare
from regard.run.triton.shapes import BACKWARD


def gradients(
    plan: core.Plan, out: Tensor, row_max: Tensor, row_log_sum: Tensor, grad_out: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of q, k and v, in their types and layouts, from the output's [B,H,Tq,Dv]."""
    from regard.run.triton.kernels.backward import delta_kernel, keys_kernel, queries_kernel

    assert plan.v is not None
    ready = prepare(plan)
    shape, widths = ready.shape(BACKWARD), ready.widths
    batch, heads, queries, _ = plan.q.shape
    groups, keys = plan.k.shape[1], plan.k.shape[2]
    grad_q, grad_k, grad_v = (torch.empty_like(x) for x in (plan.q, plan.k, plan.v))
    grad_out = grad_out.to(out.dtype)
    delta = torch.empty_like(row_max)
    num_blocks, num_tiles = -(-queries // shape.rows), -(-keys // shape.keys)
    rows = (matrix(grad_out), delta, row_max, row_log_sum)
    settings = widths | launch(shape)
    kinds = visible.classes(plan.ranges, shape.rows, shape.keys)
    if num_blocks * batch * heads:
        values = {name: settings[name] for name in ("BLOCK_M", "VALUE_WIDTH", "VALUE_PADDED")}
        grid = (num_blocks * batch * heads,)
        delta_kernel[grid](matrix(out), matrix(grad_out), delta, heads, queries, num_blocks, **values)
        tiles = visible.listed(kinds) if ready.is_listed else visible.NO_TILES
        queries_kernel[grid](
            ready.call, tiles, *rows, matrix(grad_q), num_blocks, TERMS=ready.kinds, LISTED=ready.is_listed, **settings
        )
    if num_tiles * batch * groups:
        tiles = visible.listed(kinds.transpose(-1, -2))
        grid = (num_tiles * batch * groups,)
        grads = (matrix(grad_k), matrix(grad_v))
        keys_kernel[grid](ready.call, tiles, *rows, *grads, num_tiles, TERMS=ready.kinds, **settings)
    return grad_q, grad_k, grad_v
