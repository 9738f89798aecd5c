"""Training arithmetic on a processor: what is slow there for small models, said in another way of the same meaning.

Inside `Quick`, dropout draws eight masks from one random number, attention over short rows is taken densely, and the
products of linear layers may be in bfloat16 (their sums in float32, everything else as it was). Only a training enters.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

SHORT = 1 << 18  # scores of a row of heads: beyond, the fused attention is the faster
_PRODUCTS: ContextVar[torch.dtype | None] = ContextVar("products", default=None)


def product_type(like: Tensor) -> torch.dtype:
    """The type of products: what `Quick` or autocast chose, else the tensor's own."""
    kind = like.device.type
    if torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return _PRODUCTS.get() or like.dtype


class Quick(TorchFunctionMode):
    """The quicker forms of dropout, attention and, with `products`, of linear layers, for tensors on a processor."""

    def __init__(self, products: torch.dtype | None = None) -> None:
        super().__init__()
        self.products = products

    def __enter__(self) -> Quick:
        self._before = _PRODUCTS.set(self.products)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        _PRODUCTS.reset(self._before)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        other = FORMS.get(func)
        if other is None or args[0].device.type != "cpu":
            return func(*args, **kwargs)
        return other(*args, **kwargs)


def dropout(x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """x with a share p of its elements 0 and the others divided by what is kept; p in steps of 1/256."""
    edge = round(256 * p)
    if not training or edge == 0:
        return x
    count = x.numel()
    random = torch.empty((count + 7) // 8, dtype=torch.int64).random_(-(2**63), None)
    kept = random.view(torch.uint8)[:count].view(x.shape) >= edge
    return x * kept.to(x.dtype).mul_(256 / (256 - edge))


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax(q kᵀ · scale + mask) v as three dense steps; what is long, dropped or grouped is left to torch."""
    if query.shape[-2] * key.shape[-2] > SHORT or dropout_p or enable_gqa or query.ndim != 4:
        return F.scaled_dot_product_attention(query, key, value, attn_mask, dropout_p, is_causal, scale=scale)
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = (query * factor) @ key.mT
    if is_causal:
        rows, columns = scores.shape[-2:]
        attn_mask = torch.ones(rows, columns, dtype=torch.bool).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, torch.finfo(scores.dtype).min)
    elif attn_mask is not None:
        scores = scores + attn_mask
    return scores.softmax(-1) @ value


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x Wᵀ + b, the product in the chosen type."""
    kind = product_type(weight)
    if kind == x.dtype:
        return torch._C._nn.linear(x, weight, bias)
    return _Linear.apply(x, weight, bias, kind)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, kind: torch.dtype) -> Tensor:
        ctx.x, ctx.weight, ctx.has_bias = x.to(kind).flatten(0, -2), weight.to(kind), bias is not None
        y = (ctx.x @ ctx.weight.T).float()
        return (y if bias is None else y.add_(bias)).view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *up: Tensor) -> Any:
        slope = up[0].to(ctx.weight.dtype).flatten(0, -2)
        of_x = (slope @ ctx.weight).float().view(*up[0].shape[:-1], -1)
        of_bias = up[0].flatten(0, -2).sum(0) if ctx.has_bias else None
        return of_x, (slope.T @ ctx.x).float(), of_bias, None


FORMS: dict[Any, Callable[..., Tensor]] = {
    F.dropout: dropout,
    F.scaled_dot_product_attention: attention,
    F.linear: linear,
}
