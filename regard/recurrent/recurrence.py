"""The Recurrence: attention that is a state, updated token by token.

    S_t, o_t = step(S_{t-1}, x_t)        the meaning
    chunk(S, x_{t..t+n})                 the same for many tokens at once: it equals its steps

Where the output is linear in the values, o_t = Σ_j W_tj v_j for some W: its signed *effective weights*, which are
not a distribution. Where it is not, there are none, and `effective_weights` says why.

A recurrence is causal by nature: a state at token t knows the tokens before it. Tokens come in order; an invalid one
(padding) leaves the state as it is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NoReturn

import torch
from torch import Tensor

from regard.errors import UserError
from regard.inputs import Inputs, without_invalid
from regard.mechanism import Prepare
from regard.parts.scores import spread, widened
from regard.protocol import Engine

State = Any
"""What a recurrence carries: a tensor or a tuple of tensors, [B,H,…]."""

CHUNK = 64


class Recurrence(ABC):
    """Attention as a state: a frozen dataclass with these fields and the first four methods.

    name: its standard name; source: paper and equation; prepare: what happens to queries and keys once, before.
    """

    name: str
    source: str
    prepare: tuple[Prepare, ...]
    is_causal: ClassVar[bool] = True

    @abstractmethod
    def start(self, x: Inputs) -> State:
        """The state before the first token, for inputs of these shapes."""

    @abstractmethod
    def step(self, state: State, x: Inputs) -> tuple[State, Tensor]:
        """One token: the next state and its output [B,H,1,Dv]."""

    @abstractmethod
    def chunk(self, state: State, x: Inputs) -> tuple[State, Tensor]:
        """Many tokens: the state after them and their outputs [B,H,T,Dv]."""

    @abstractmethod
    def effective_weights(self, x: Inputs, rows: slice, keys: slice) -> Tensor:
        """W of a rectangle, signed [B,H,rows,keys]; raises NotObservable where there is none."""

    def gates(self, x: Inputs) -> dict[str, tuple[int, ...] | None]:
        """The extras per key that it reads, [B, heads, T, width]: each name with the widths that it takes, None for
        one number per token, [B, heads, T]."""
        return {}

    def recur(self, x: Inputs, state: State | None = None, size: int = CHUNK) -> tuple[Tensor, State]:
        """Outputs [B,H,T,Dv] and the state after the last token, `size` tokens at a time; 1 runs the steps themselves.

        state: where an earlier call left off, None for the beginning.
        """
        if x.v is None:
            raise UserError(f"{self.name} needs values; give v")
        width = x.v.shape[-1]
        x = ready(self, x)
        state = self.start(x) if state is None else state
        run, outputs = self.step if size == 1 else self.chunk, []
        for begin in range(0, x.q.shape[2], size):
            state, out = run(state, tokens(x, slice(begin, min(begin + size, x.q.shape[2]))))
            outputs.append(out)
        if not outputs:
            return widened(x.q).new_zeros(*x.q.shape[:3], width), state
        return torch.cat(outputs, 2), state

    def attend(self, x: Inputs, engine: Engine) -> Tensor:
        return self.recur(x, size=engine.chunk(self.name))[0].to(x.q.dtype)

    def weights(self, x: Inputs, rows: slice, keys: slice, engine: Engine) -> Tensor:
        x = ready(self, x if x.v is not None else x.replace(v=torch.zeros_like(x.k[..., :1])))
        if not x.q.shape[2]:
            return widened(x.q).new_zeros(*x.q.shape[:2], 0, 0)
        return self.effective_weights(x, rows, keys)

    def masked(self, mask: Any) -> NoReturn:
        raise UserError(f"{self.name} is a recurrence: its state sees the whole past, no mask can be applied")

    def composition(self) -> tuple[tuple[str, Any], ...]:
        return (*(("prepare", part) for part in self.prepare), ("recurrence", self))

    def __str__(self) -> str:
        return self.name


def tokens(x: Inputs, part: slice) -> Inputs:
    """The inputs of some tokens of a self-attention."""
    return x.replace(
        q=x.q[:, :, part],
        k=x.k[:, :, part],
        v=None if x.v is None else x.v[:, :, part],
        query_positions=x.query_positions[:, part],
        key_positions=x.key_positions[:, part],
        key_valid=None if x.key_valid is None else x.key_valid[:, part],
        per_query={name: extra[:, :, part] for name, extra in x.per_query.items()},
        per_key={name: extra[:, :, part] for name, extra in x.per_key.items()},
    )


def ready(recurrence: Recurrence, x: Inputs) -> Inputs:
    """Prepared inputs with what invalid tokens hold zeroed; raises where the call is not a causal self-attention, and
    where a gate is missing or does not fit."""
    if x.q.shape[2] != x.k.shape[2]:
        raise UserError(
            f"{recurrence.name} is a recurrence over one sequence, and {x.q.shape[2]} queries on {x.k.shape[2]} keys "
            "are two; use a mechanism with weights for cross-attention"
        )
    if x.allowed is not None:
        recurrence.masked(x.allowed)
    for name, widths in recurrence.gates(x).items():
        _check_gate(x, name, widths, recurrence.name)
    x = without_invalid(x)
    for prepare in recurrence.prepare:
        x = prepare(x)
    return without_invalid(x)


def _check_gate(x: Inputs, name: str, widths: tuple[int, ...] | None, of: str) -> None:
    batch, heads, length = x.q.shape[:3]
    shape = f"[{batch}, {heads}, {length}" + ("" if widths is None else f", {' or '.join(map(str, widths))}") + "]"
    if name not in x.per_key:
        raise UserError(f"{of} needs the gate {name!r} per token: give per_key={{{name!r}: {shape}}}")
    found = tuple(x.per_key[name].shape)
    width_fits = len(found) == 3 if widths is None else len(found) == 4 and found[3] in widths
    if not width_fits or found[0] != batch or found[1] not in (1, x.k.shape[1], heads) or found[2] != length:
        raise UserError(f"{of}'s gate {name!r} is {shape} (or fewer heads) for these inputs, got {list(found)}")


def per_head(x: Inputs, tensor: Tensor) -> Tensor:
    """Keys, values or a gate, widened and spread over the query heads."""
    return spread(widened(tensor), x.q.shape[1])


def without_padding(x: Inputs, log_decay: Tensor) -> Tensor:
    """Log decay with invalid tokens left out: they do not age the state."""
    if x.key_valid is None:
        return log_decay
    return torch.where(x.key_valid[:, None, :, None], log_decay, 0.0)
