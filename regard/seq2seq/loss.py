"""Cross-entropy over a large vocabulary, without ever holding the logits of a whole batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from regard.seq2seq.narrow import product_type

CELLS = 1 << 21  # logits that exist at a time, in blocks of some hundred rows


def smoothed_cross_entropy(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, smoothing: float = 0.0
) -> Tensor:
    """-Σ_i [(1 - ε) log p_i[target_i] + ε mean(log p_i)], p = softmax(hidden Wᵀ + b): torch's label smoothing, summed.

    hidden [N,E], weight [V,E], bias [V] or None, target [N] -> a number. The gradient is taken in the same walk, some
    hundred rows at a time, so that logits [N,V] never exist; products in the type that training chose, sums in float32.
    """
    return _Loss.apply(hidden, weight, bias, target, smoothing, product_type(hidden))


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, smoothing: float, kind: Any
    ) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            return _Loss._walk(ctx, hidden, weight, bias, target, smoothing, kind)

    @staticmethod
    def _walk(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, smoothing: float, kind: Any
    ) -> Tensor:
        h, w = hidden.to(kind), weight.to(kind)
        wanted = any(ctx.needs_input_grad[:3])
        of_hidden = torch.empty_like(hidden)
        of_weight, of_bias = torch.zeros_like(weight, dtype=torch.float32), weight.new_zeros(weight.shape[0])
        total = hidden.new_zeros((), dtype=torch.float64)
        height = max(CELLS // weight.shape[0], 32)
        for begin in range(0, hidden.shape[0], height):
            rows = slice(begin, begin + height)
            logits = (h[rows] @ w.T).float()
            if bias is not None:
                logits += bias
            aim, logs = target[rows, None], log_softmax(logits, 1)
            missed = (1 - smoothing) * logs.gather(1, aim)
            missed = missed + smoothing * logs.mean(1, keepdim=True) if smoothing else missed
            total -= missed.sum(dtype=torch.float64)
            if wanted:
                slope = logs.exp_().sub_(smoothing / logits.shape[1])
                slope.scatter_add_(1, aim, slope.new_full(aim.shape, smoothing - 1))
                of_bias += slope.sum(0)
                slope = slope.to(kind)
                of_hidden[rows] = slope @ w
                of_weight += slope.T @ h[rows]
        ctx.save_for_backward(of_hidden, of_weight.to(weight.dtype), of_bias)
        ctx.has_bias = bias is not None
        return total.to(torch.float32)

    @staticmethod
    def backward(ctx: Any, *up: Tensor) -> Any:
        of_hidden, of_weight, of_bias = ctx.saved_tensors
        (scale,) = up
        return scale * of_hidden, scale * of_weight, scale * of_bias if ctx.has_bias else None, None, None, None
