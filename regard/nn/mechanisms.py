"""What a module's `mechanism` may be, and what every module does with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from regard.errors import UserError
from regard.inputs import Inputs, inputs
from regard.lower import reads_positions
from regard.mechanism import Mechanism, single
from regard.parts.adjusts import Dropout
from regard.parts.masks import causal
from regard.protocol import Attention
from regard.run import compose, reference


class Learned(nn.Module):
    """A mechanism whose tensors are this module's parameters: Learned(learned_sink, sink=torch.zeros(heads)).

    Floating tensors among the arguments become parameters, other tensors buffers; everything else is kept. Calling it
    builds the record from them, by reference, so gradients, `.to()` and state dicts work.
    """

    def __init__(self, factory: Callable[..., Attention], **arguments: Any) -> None:
        super().__init__()
        self.factory = factory
        self.fixed = {name: value for name, value in arguments.items() if not isinstance(value, Tensor)}
        for name, value in arguments.items():
            if isinstance(value, Tensor) and value.is_floating_point():
                self.register_parameter(name, nn.Parameter(value.detach().clone()))
            elif isinstance(value, Tensor):
                self.register_buffer(name, value)

    def forward(self) -> Attention:
        """The mechanism, made of the parameters as they are now."""
        tensors = {**dict(self.named_parameters(recurse=False)), **dict(self.named_buffers(recurse=False))}
        return self.factory(**self.fixed, **tensors)


Given = Attention | str | Learned
"""A mechanism, its text form such as "causal & window(64)", or one with learned tensors."""


def settled(given: Given) -> Attention | Learned:
    """The mechanism, its text read once."""
    return given if isinstance(given, Learned) else compose.resolved(given)


def built(given: Attention | Learned) -> Attention:
    """The record for this forward."""
    return given() if isinstance(given, Learned) else given


def made_causal(attention: Attention) -> Attention:
    """The mechanism, in which no token sees a later one: a causal mask added where it is not causal already."""
    return attention if attention.is_causal else attention.masked(causal())


def with_dropout(attention: Attention, p: float, training: bool) -> Attention:
    """The mechanism with dropout on its weights while training; its noise follows torch's random state."""
    if not training or p == 0.0:
        return attention
    mechanism = single(attention, f"dropout={p} acts on the weights of a row")
    seed = int(torch.randint(2**31 - 1, (), device="cpu"))
    return mechanism.replace(adjust=(*mechanism.adjust, Dropout(p, seed)))


def reads_any_positions(attention: Attention) -> bool:
    """Whether some part of an attention needs to know where queries and keys stand; prepares are taken to."""
    if not isinstance(attention, Mechanism) or attention.prepare or reads_positions(attention.mask):
        return True
    return any(getattr(part, "reads_positions", False) for _, part in attention.composition())


def attend(attention: Attention, x: Inputs, need_weights: bool) -> tuple[Tensor, Tensor | None]:
    """Output [B,H,Tq,Dv] and, if asked for, the weights [B,H,Tq,Tk], differentiable too; those take Tq · Tk memory."""
    if not need_weights:
        return compose.attend(attention, x), None
    if not isinstance(attention, Mechanism):
        return compose.attend(attention, x), compose.weights(attention, x)
    out, weights = reference.attend(attention, x)
    if out is None:
        raise UserError(f"{attention.name} has no output, its weights are the result; call regard.weights")
    return out.to(x.q.dtype), weights.to(x.q.dtype)


def split(x: Tensor, heads: int) -> Tensor:
    """[B,T,heads · D] -> [B,heads,T,D]."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def joined(x: Tensor) -> Tensor:
    """[B,heads,T,D] -> [B,T,heads · D]."""
    return x.transpose(1, 2).flatten(2)


def head_width(width: int, heads: int, what: str) -> int:
    """width / heads; raises UserError where that is no whole number of at least 1."""
    if width < 1:
        raise UserError(f"{what} of {width} holds nothing; give at least 1")
    if heads < 1 or width % heads:
        raise UserError(f"{what} of {width} does not divide into {heads} heads; choose a divisor of {width}")
    return width // heads


def call(
    attention: Attention,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    need_weights: bool,
    per_query: Mapping[str, Tensor] | None = None,
    per_key: Mapping[str, Tensor] | None = None,
    **more: Any,
) -> tuple[Tensor, Tensor | None]:
    """One attention call from split heads; more: key_valid, allowed, positions."""
    return attend(attention, inputs(q, k, v, per_query=per_query, per_key=per_key, **more), need_weights)
