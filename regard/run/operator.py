"""Attention as one operator of torch, for whatever traces a program: torch.compile, torch.export, FakeTensorMode.

A call is an attention, a nested record or a text form, and the arguments of `regard.attention`. Its tensors are the
operator's arguments; everything else is written as a text that says where each tensor belongs, so that the operator
needs nothing but its arguments:

    regard::attend(Tensor[] tensors, str call, str backend) -> Tensor

Its gradient is an operator too, which computes the output once more. Outside of tracing nothing passes through here.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from regard.errors import UserError
from regard.inputs import Inputs, inputs
from regard.protocol import Attention

Written = Any
"""A nested tuple of strings and numbers whose repr `ast.literal_eval` reads."""


def attend(attention: Attention | str, x: Inputs | dict[str, Any], backend: str) -> Tensor:
    """Output [B,H,Tq,Dv] in the query's type, as one operator. x: inputs, or the arguments of `attention` by name.

    Raises UserError for an attention that has no such form.
    """
    arguments: list[Tensor] = []
    call = repr(written((attention, x), arguments))
    return torch.ops.regard.attend(arguments, call, backend)


# ---- records as text and tensors ------------------------------------------------------------------------------------


def written(value: Any, tensors: list[Tensor]) -> Written:
    """A nested record as tuples, strings and numbers; its tensors are appended to `tensors`, named by their index."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Tensor):
        tensors.append(value)
        return ("tensor", len(tensors) - 1)
    if isinstance(value, float):
        return ("float", value.hex())
    if isinstance(value, tuple | list):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return (kind, tuple([written(item, tensors) for item in value]))
    if isinstance(value, slice):
        return ("slice", (value.start, value.stop, value.step))
    if isinstance(value, dict):
        return ("dict", tuple([(name, written(item, tensors)) for name, item in value.items()]))
    kind_of = type(value)
    if not is_dataclass(value):
        raise UserError(
            f"{kind_of.__name__} is no record of numbers and tensors, so torch.compile cannot carry it; call regard "
            "outside of the compiled function, or use torch.compiler.disable"
        )
    parts = tuple([(f.name, written(getattr(value, f.name), tensors)) for f in fields(value) if f.init])
    return ("record", kind_of.__module__, kind_of.__qualname__, parts)


def read(value: Written, tensors: Sequence[Tensor]) -> Any:
    """What `written` wrote."""
    match value:
        case ("tensor", int(index)):
            return tensors[index]
        case ("float", str(digits)):
            return float.fromhex(digits)
        case ("list", items):
            return [read(item, tensors) for item in items]
        case ("tuple", items):
            return tuple(read(item, tensors) for item in items)
        case ("slice", items):
            return slice(*items)
        case ("dict", items):
            return {name: read(item, tensors) for name, item in items}
        case ("record", str(module), str(name), parts):
            return _record_type(module, name)(**{part: read(item, tensors) for part, item in parts})
    return value


def _record_type(module: str, name: str) -> Any:
    """A dataclass by name, of a module that is already loaded."""
    kind: Any = sys.modules.get(module)
    for part in name.split("."):
        kind = getattr(kind, part, None)
    if not isinstance(kind, type) or not is_dataclass(kind):
        raise UserError(f"the compiled call names a record {module}.{name}, which is not loaded; import {module} first")
    return kind


@lru_cache(maxsize=512)
def _literal(call: str) -> Written:
    return ast.literal_eval(call)


def _call(call: str, tensors: Sequence[Tensor]) -> tuple[Attention, Inputs]:
    """The attention and its inputs, checked as `regard.attention` checks them."""
    from regard.run.attention import masked
    from regard.run.compose import resolved

    attention, arguments = read(_literal(call), tensors)
    if isinstance(arguments, Inputs):
        return resolved(attention), arguments
    mask = arguments.pop("mask", None)
    meaning, x = resolved(attention), inputs(**arguments)
    return (meaning, x) if mask is None else masked(meaning, x, mask)


# ---- the operators --------------------------------------------------------------------------------------------------


@torch.library.custom_op("regard::attend", mutates_args=())
def _attend(tensors: Sequence[Tensor], call: str, backend: str) -> Tensor:
    from regard.run import compose

    attention, x = _call(call, tensors)
    with torch.no_grad():
        return compose.attend(attention, x, backend).contiguous()


@_attend.register_fake
def _(tensors: Sequence[Tensor], call: str, backend: str) -> Tensor:
    _, x = read(_literal(call), tensors)
    q, v = (x["q"], x["v"]) if isinstance(x, dict) else (x.q, x.v)
    return q.new_empty(*q.shape[:3], v.shape[-1])


@torch.library.custom_op("regard::attend_backward", mutates_args=())
def _attend_backward(
    grad_out: Tensor, tensors: Sequence[Tensor], wanted: Sequence[int], call: str, backend: str
) -> list[Tensor]:
    from regard.run import compose

    leaves = list(tensors)
    for index in wanted:
        leaves[index] = tensors[index].detach().requires_grad_()
    attention, x = _call(call, leaves)
    with torch.enable_grad():
        out = compose.attend(attention, x, backend)
        asked = [leaves[index] for index in wanted]
        grads = torch.autograd.grad(out, asked, grad_out.to(out.dtype), allow_unused=True)
    return [
        torch.zeros_like(leaf, memory_format=torch.contiguous_format) if grad is None else grad.contiguous().clone()
        for leaf, grad in zip(asked, grads)
    ]


@_attend_backward.register_fake
def _(grad_out: Tensor, tensors: Sequence[Tensor], wanted: Sequence[int], call: str, backend: str) -> list[Tensor]:
    return [torch.empty_like(tensors[index], memory_format=torch.contiguous_format) for index in wanted]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    tensors, ctx.call, ctx.backend = inputs
    ctx.save_for_backward(*tensors)
    ctx.floating = [i for i, tensor in enumerate(tensors) if tensor.is_floating_point()]
    ctx.count = len(tensors)


def _gradient(ctx: Any, grad_out: Tensor) -> tuple[Any, None, None]:
    tensors = list(ctx.saved_tensors)
    wanted = [i for i in ctx.floating if tensors[i].requires_grad]
    grads: list[Tensor | None] = [None] * ctx.count
    if wanted:
        for i, grad in zip(wanted, torch.ops.regard.attend_backward(grad_out, tensors, wanted, ctx.call, ctx.backend)):
            grads[i] = grad
    return grads, None, None


_attend.register_autograd(_gradient, setup_context=_keep)
