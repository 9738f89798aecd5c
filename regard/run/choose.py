"""Which backend computes what: one table, for choosing, for `--verbose` and for the docs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from regard import core
from regard.errors import UserError
from regard.mechanism import Inputs, Mechanism, lower, prepared
from regard.run import native, reference, strips, triton
from regard.run.native import Native
from regard.run.triton import Triton


def fused_observer(device: torch.device) -> Native | Triton | None:
    """The backend that reduces weights on this device without handing them out, or None where there is none."""
    if device.type == "cuda":
        return triton.TRITON if triton.why_unavailable(device) is None else None
    return native.NATIVE if native.available() else None


def unknown_backend(name: str, *more: str) -> UserError:
    """The error for a backend that does not exist. more: names that the caller knows besides."""
    return UserError(f"no backend {name!r}; there are: {', '.join((*more, 'auto', *BACKENDS))}")


def attend(mechanism: Mechanism, x: Inputs, backend: str = "auto") -> Tensor:
    """Output [B,H,Tq,Dv]. backend: "auto" for the fastest that computes the same thing, or a name from BACKENDS.

    Raises ValueError, naming the reason, where a named backend cannot.
    """
    if backend not in BACKENDS and backend != "auto":
        raise unknown_backend(backend)
    prepared_inputs = of_one_type(prepared(mechanism, x))
    plain = mechanism.replace(prepare=())
    needs_grad = torch.is_grad_enabled() and strips.requires_grad(plain, prepared_inputs)
    for name in automatic(x.q.device) if backend == "auto" else (backend,):
        reason, run = BACKENDS[name](plain, prepared_inputs, needs_grad)
        if run is not None:
            return run().to(x.q.dtype)
        if backend != "auto":
            raise UserError(f"backend {name!r} cannot compute {mechanism.name}: {reason}; use backend='auto'")
    raise AssertionError("strips compute every mechanism")


def automatic(device: torch.device) -> list[str]:
    """The backends that "auto" tries, in order: on the CPU not Triton, whose interpreter is for tests."""
    return [name for name in BACKENDS if name != "triton" or device.type == "cuda"]


def of_one_type(x: Inputs) -> Inputs:
    """Queries, keys and values in the widest of their types: a prepare may have widened some."""
    tensors = [t for t in (x.q, x.k, x.v) if t is not None]
    if len({t.dtype for t in tensors}) == 1:
        return x
    widest = tensors[0].dtype
    for tensor in tensors[1:]:
        widest = torch.promote_types(widest, tensor.dtype)
    return x.replace(q=x.q.to(widest), k=x.k.to(widest), v=None if x.v is None else x.v.to(widest))


Attempt = tuple[str, Callable[[], Tensor] | None]


def _native(mechanism: Mechanism, x: Inputs, needs_grad: bool) -> Attempt:
    if not native.available():
        return str(native.why_unavailable()), None
    plan = lower(mechanism, x)
    if isinstance(plan, core.Refusal):
        return str(plan), None
    reason = native.NATIVE.refuses(plan, None, needs_grad)
    return (reason, None) if reason else ("", lambda: native.attention(plan))


def _triton(mechanism: Mechanism, x: Inputs, needs_grad: bool) -> Attempt:
    absent = triton.why_unavailable(x.q.device)
    if absent is not None:
        return absent, None
    plan = lower(mechanism, x)
    if isinstance(plan, core.Refusal):
        return str(plan), None
    reason = triton.TRITON.refuses(plan, None, needs_grad)
    return (reason, None) if reason else ("", lambda: triton.attention(plan))


def _sdpa(mechanism: Mechanism, x: Inputs, needs_grad: bool) -> Attempt:
    """torch's fused kernels, only where they compute the same thing without an n × n mask or an n² fallback."""
    plan = lower(mechanism, x)
    if isinstance(plan, core.Refusal):
        return str(plan), None
    if len(plan.terms) > 1 or plan.softmax.sink is not None:
        return "SDPA's fused kernels take a scaled dot product and a softmax without a sink, nothing else", None
    scale = plan.terms[0].scale if isinstance(plan.terms[0], core.Dot) else None
    if not isinstance(scale, float | int) or plan.v is None or plan.v.shape[-1] != plan.q.shape[-1]:
        return "SDPA's fused kernels need one scale for all heads and values as wide as keys", None
    causal = plan.ranges.is_square_causal()
    if not causal and not plan.ranges.is_full():
        return "SDPA's fused kernels know a full and a square causal mask; others would take an n × n one", None
    q, k, v, gqa = plan.q, plan.k, plan.v, plan.q.shape[1] != plan.k.shape[1]
    return "", lambda: scaled_dot_product_attention(q, k, v, is_causal=causal, scale=float(scale), enable_gqa=gqa)


def _strips(mechanism: Mechanism, x: Inputs, needs_grad: bool) -> Attempt:
    def run() -> Tensor:
        out = strips.attend(mechanism, x)
        assert out is not None
        return out

    return "", run


def _reference(mechanism: Mechanism, x: Inputs, needs_grad: bool) -> Attempt:
    def run() -> Tensor:
        out, _ = reference.attend(mechanism, x)
        if out is None:
            raise ValueError(f"{mechanism.name} has no output: its weights are the result; ask for regard.weights")
        return out.to(x.q.dtype)

    return "", run


BACKENDS: dict[str, Callable[[Mechanism, Inputs, bool], Attempt]] = {
    "triton": _triton,
    "native": _native,
    "sdpa": _sdpa,
    "strips": _strips,
    "reference": _reference,
}
