"""torch's scaled_dot_product_attention, only where it computes the same without an n × n mask or an n² fallback."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from regard import core
from regard.run.backend import CLOSED, DENSE_ONLY, UNWATCHED, Backend, Limit, Request
from regard.run.limits import beside_q, of_tensors
from regard.run.output import Output

TYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def walk(plan: core.Plan, watch: core.Watch | None, output: bool) -> Output:
    """The output [B,H,Tq,Dv] of a plan within the limits."""
    assert plan.v is not None and isinstance(plan.terms[0], core.Dot)
    out = scaled_dot_product_attention(
        plan.q,
        plan.k,
        plan.v,
        is_causal=not plan.ranges.is_full(),
        scale=float(plan.terms[0].scale),
        enable_gqa=plan.q.shape[1] != plan.k.shape[1],
    )
    return Output(out)


def _terms(request: Request) -> str | None:
    further = request.plan.terms[1:]
    return f"{type(further[0]).__name__}: is a further score term" if further else None


def _scale(request: Request) -> str | None:
    first = request.plan.terms[0]
    number = isinstance(first, core.Dot) and isinstance(first.scale, float | int)
    return None if number else "Dot: has a tensor for its scale"


def _value_width(request: Request) -> str | None:
    q, v = request.plan.q, request.plan.v
    if v is None:
        return "v: is not given"
    return None if v.shape[-1] == q.shape[-1] else f"v: is {v.shape[-1]} wide and q {q.shape[-1]}"


def _mask(request: Request) -> str | None:
    seen = request.plan.ranges
    return None if seen.is_full() or seen.is_square_causal() else "mask: is neither"


def _dtype(tensor: Tensor, plan: core.Plan) -> str | None:
    return None if tensor.dtype in TYPES else f"is {tensor.dtype}"


LIMITS = (
    CLOSED,
    Limit("devices", "computes where q lies", of_tensors(beside_q)),
    Limit("dtypes", "takes float64, float32, bfloat16 or float16", of_tensors(_dtype)),
    Limit("score terms", "takes a scaled dot product and nothing else", _terms),
    Limit("score terms", "takes one number as the scale of all heads", _scale),
    Limit(
        "softmax sink",
        "takes a softmax without one",
        lambda request: None if request.plan.softmax.sink is None else "Softmax: has a sink",
    ),
    Limit("widths", "takes values as wide as keys", _value_width),
    Limit("masks", "takes a full or a square causal one; others would take n × n numbers", _mask),
    UNWATCHED,
    DENSE_ONLY,
)
SDPA = Backend("sdpa", "a scaled dot product by torch's fused kernels", LIMITS, walk)
