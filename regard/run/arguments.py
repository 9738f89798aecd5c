"""What torch may hand over as a tensor, and what attention makes of it: torch's own behaviour, or one sentence."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from regard.errors import UserError

PLAIN = (Tensor, torch.nn.Parameter)


def accepted(q: Tensor, k: Tensor, v: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Queries, keys and values as floating-point numbers that lie as they read, in autocast's type where it is on.

    Raises UserError for what is no such tensor, or is traced in a way that attention does not follow.
    """
    named = {"q": q, "k": k} | ({} if v is None else {"v": v})
    for name, tensor in named.items():
        _check(name, tensor)
    kind = q.device.type
    if kind == "meta" or not torch.is_autocast_enabled(kind):
        return q.resolve_neg(), k.resolve_neg(), None if v is None else v.resolve_neg()
    to = torch.get_autocast_dtype(kind)
    cast = [t if t.dtype == torch.float64 else t.to(to) for t in named.values()]
    return cast[0].resolve_neg(), cast[1].resolve_neg(), None if v is None else cast[2].resolve_neg()


def is_ordinary(q: Tensor, k: Tensor, v: Tensor | None) -> bool:
    """Whether these are ordinary tensors in an ordinary program, which the fast way takes as they are."""
    return (
        type(q) in PLAIN
        and type(k) in PLAIN
        and (v is None or type(v) in PLAIN)
        and q.device.type != "meta"
        and not torch.compiler.is_compiling()
        and torch._C._len_torch_dispatch_stack() == 0
    )


def is_followed(q: Tensor) -> bool:
    """Whether autocast, torch.func or a forward-mode derivative is at work, so that `accepted` must look."""
    return (
        torch.is_autocast_enabled(q.device.type)
        or torch._C._functorch.peek_interpreter_stack() is not None
        or forward_ad._current_level >= 0
    )


def _check(name: str, tensor: Any) -> None:
    if not isinstance(tensor, Tensor):
        raise UserError(f"{name} must be a torch tensor, got {type(tensor).__name__}; use torch.as_tensor({name})")
    if not tensor.is_floating_point():
        kind = "complex" if tensor.is_complex() else "integer"
        raise UserError(
            f"{name} is {kind} ({str(tensor.dtype).removeprefix('torch.')}), and attention takes floating-point "
            "numbers; " + (f"use {name}.float()" if kind == "integer" else "give real and imaginary parts apart")
        )
    if torch.compiler.is_compiling():
        return
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        raise UserError(
            f"{name} is traced by torch.func (vmap, grad, jvp …), which regard does not follow; give a batch dimension "
            "in place of vmap, and use torch.autograd.grad in place of func.grad"
        )
    if forward_ad._current_level >= 0 and forward_ad.unpack_dual(tensor).tangent is not None:
        raise UserError(
            f"{name} carries a forward-mode tangent, and attention has no forward-mode derivative; use reverse mode "
            "(torch.autograd.grad)"
        )
