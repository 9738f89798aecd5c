"""The Recurrence: attention that is a state, updated token by token.

    S_t, o_t = step(S_{t-1}, x_t)        the meaning
    chunk(S, x_{t..t+n})                 the same for many tokens at once: it equals its steps

Where the output is linear in the values, o_t = Σ_j W_tj v_j for some W: its signed *effective weights*, which are
not a distribution. Where it is not, there are none, and `effective_weights` says why.

A recurrence is causal by nature: a state at token t knows the tokens before it. Tokens come in order; an invalid one
(padding) leaves the state as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from regard.mechanism import Inputs, Prepare, without_invalid
from regard.parts.scores import spread, widened

State = Any
"""What a recurrence carries: a tensor or a tuple of tensors, [B,H,…]."""


class NotObservable(ValueError):
    """These weights do not exist, and why."""


@runtime_checkable
class Recurrence(Protocol):
    """Attention as a state. Tensors q, k, v of x may be one token (step) or many (chunk, effective weights)."""

    @property
    def name(self) -> str: ...

    @property
    def source(self) -> str: ...

    @property
    def prepare(self) -> tuple[Prepare, ...]: ...

    @property
    def linear_in_values(self) -> bool: ...

    def start(self, x: Inputs) -> State:
        """The state before the first token, for inputs of these shapes."""

    def step(self, state: State, x: Inputs) -> tuple[State, Tensor]:
        """One token: the next state and its output [B,H,1,Dv]."""

    def chunk(self, state: State, x: Inputs) -> tuple[State, Tensor]:
        """Many tokens: the state after them and their outputs [B,H,T,Dv]."""

    def effective_weights(self, x: Inputs, rows: slice, keys: slice) -> Tensor:
        """W of a rectangle, signed [B,H,rows,keys]; raises NotObservable where there is none."""


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
    """Prepared inputs with what invalid tokens hold zeroed; raises where the call is not a causal self-attention."""
    if x.q.shape[2] != x.k.shape[2]:
        raise ValueError(
            f"{recurrence.name} is a recurrence over one sequence, and {x.q.shape[2]} queries on {x.k.shape[2]} keys "
            "are two; use a mechanism with weights for cross-attention"
        )
    if x.allowed is not None:
        raise ValueError(f"{recurrence.name} is a recurrence: its state sees the whole past, no mask can be applied")
    x = without_invalid(x)
    for prepare in recurrence.prepare:
        x = prepare(x)
    return without_invalid(x)


def per_head(x: Inputs, tensor: Tensor) -> Tensor:
    """Keys, values or an extra, widened and spread over the query heads."""
    return spread(widened(tensor), x.q.shape[1])


def extra(x: Inputs, name: str, part: str) -> Tensor:
    """A gate given per key, [B,H or G or 1,T,…], spread over the query heads."""
    if name not in x.per_key:
        raise ValueError(f"{part} needs the gate {name!r} per token: give per_key={{{name!r}: [B, heads, tokens, …]}}")
    return per_head(x, x.per_key[name])


def _kept(x: Inputs, log_decay: Tensor) -> Tensor:
    """Log decay with invalid tokens left out: they do not age the state."""
    if x.key_valid is None:
        return log_decay
    return torch.where(x.key_valid[:, None, :, None], log_decay, 0.0)


def past(x: Inputs) -> Tensor:
    """bool [T,T]: j <= i."""
    size = x.q.shape[2]
    return torch.ones(size, size, dtype=torch.bool, device=x.q.device).tril()


# ---- S_t = Diag(α_t) S_{t-1} + k_t v_tᵀ ------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Decay:
    """S_t = Diag(α_t) S_{t-1} + k_t v_tᵀ, o_t = c q_tᵀ S_t. α = 1: linear attention; α = γ_h: retention; else gated.

    decay: γ [heads] (constant), "gate" (log α_t given as per_key["log_decay"], [B,H,T,Dk or 1]), or None for 1.
    normalise divides o_t by Σ_j W_tj (linear attention's denominator). scale c: None for 1/√Dk.
    """

    name: str
    source: str
    decay: Tensor | str | None = None
    normalise: bool = False
    scale: float | None = 1.0
    prepare: tuple[Prepare, ...] = ()
    linear_in_values: bool = True

    def start(self, x: Inputs) -> State:
        assert x.v is not None
        width = x.v.shape[-1] + self.normalise
        return widened(x.q).new_zeros(*x.q.shape[:2], x.q.shape[-1], width)

    def step(self, state: State, x: Inputs) -> tuple[State, Tensor]:
        q, k, v, log_decay = self._parts(x)
        state = state * log_decay.exp().transpose(-1, -2) + k.transpose(-1, -2) @ v
        return state, self._finished(q @ state)

    def chunk(self, state: State, x: Inputs) -> tuple[State, Tensor]:
        q, k, v, log_decay = self._parts(x)
        age = log_decay.cumsum(2)
        out = (q * age.exp()) @ state + _decayed_products(q, k, age, age, past(x)) @ v
        rest = (age[:, :, -1:] - age).exp()
        state = state * age[:, :, -1:].exp().transpose(-1, -2) + (k * rest).transpose(-1, -2) @ v
        return state, self._finished(out)

    def effective_weights(self, x: Inputs, rows: slice, keys: slice) -> Tensor:
        q, k, _, log_decay = self._parts(x)
        age = log_decay.cumsum(2)
        if not self.normalise:
            seen = past(x)[rows, keys]
            return _decayed_products(q[:, :, rows], k[:, :, keys], age[:, :, rows], age[:, :, keys], seen)
        whole = _decayed_products(q[:, :, rows], k, age[:, :, rows], age, past(x)[rows])
        total = whole.sum(-1, keepdim=True)
        return (whole / total.masked_fill(total == 0, 1.0))[..., keys]

    def _parts(self, x: Inputs) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Scaled q, k, v (with a column of ones for the denominator), and log α [B,H,T,Dk or 1]."""
        assert x.v is not None
        q = widened(x.q) * (x.q.shape[-1] ** -0.5 if self.scale is None else self.scale)
        k, v = per_head(x, x.k), per_head(x, x.v)
        if self.normalise:
            v = torch.cat([v, torch.ones_like(v[..., :1])], -1)
        return q, k, v, _kept(x, self._log_decay(x, q))

    def _log_decay(self, x: Inputs, q: Tensor) -> Tensor:
        if self.decay is None:
            return torch.zeros_like(q[..., :1])
        if isinstance(self.decay, Tensor):
            return self.decay.to(q.dtype).log()[None, :, None, None].expand(*q.shape[:3], 1)
        return extra(x, "log_decay", self.name)

    def _finished(self, out: Tensor) -> Tensor:
        if not self.normalise:
            return out
        out, total = out[..., :-1], out[..., -1:]
        return out / total.masked_fill(total == 0, 1.0)


def _decayed_products(q: Tensor, k: Tensor, age_q: Tensor, age_k: Tensor, seen: Tensor) -> Tensor:
    """Σ_d q_id k_jd e^{age_i - age_j} where j <= i, 0 elsewhere: the difference is never positive, so it is safe."""
    if age_q.shape[-1] == 1:
        fade = (age_q - age_k.transpose(-1, -2)).masked_fill(~seen, -float("inf")).exp()
        return (q @ k.transpose(-1, -2)) * fade
    fade = (age_q[:, :, :, None] - age_k[:, :, None]).masked_fill(~seen[..., None], -float("inf")).exp()
    return torch.einsum("bhid,bhjd,bhijd->bhij", q, k, fade)


# ---- S_t = α_t (I - β_t k_t k_tᵀ) S_{t-1} + β_t k_t v_tᵀ -----------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Delta:
    """S_t = α_t (I - β_t k_t k_tᵀ) S_{t-1} + β_t k_t v_tᵀ, o_t = c q_tᵀ S_t: a value is replaced, not added to.

    β_t in (0, 1): per_key["beta"] [B,H,T]; α_t: per_key["log_decay"] [B,H,T,1] if gated, else 1. Keys of unit length.
    """

    name: str
    source: str
    gated: bool = False
    scale: float | None = 1.0
    prepare: tuple[Prepare, ...] = ()
    linear_in_values: bool = True

    def start(self, x: Inputs) -> State:
        assert x.v is not None
        return widened(x.q).new_zeros(*x.q.shape[:2], x.q.shape[-1], x.v.shape[-1])

    def step(self, state: State, x: Inputs) -> tuple[State, Tensor]:
        q, k, v, beta, log_decay = self._parts(x)
        state = state * log_decay.exp()
        state = state + k.transpose(-1, -2) @ (beta * (v - k @ state))
        return state, q @ state

    def chunk(self, state: State, x: Inputs) -> tuple[State, Tensor]:
        q, k, v, beta, log_decay = self._parts(x)
        age, seen = log_decay.cumsum(2), past(x)
        overlap = beta * _decayed_products(k, k, age, age, seen.tril(-1))
        written = _unit_lower_solve(overlap, beta * (v - (k * age.exp()) @ state))
        out = (q * age.exp()) @ state + _decayed_products(q, k, age, age, seen) @ written
        rest = (age[:, :, -1:] - age).exp()
        return state * age[:, :, -1:].exp() + (k * rest).transpose(-1, -2) @ written, out

    def effective_weights(self, x: Inputs, rows: slice, keys: slice) -> Tensor:
        """W = tril(QKᵀ ∘ D) (I + tril(β KKᵀ ∘ D, -1))⁻¹ Diag β, D_ij = Π_{j<l<=i} α_l, solved block by block."""
        q, k, _, beta, log_decay = self._parts(x)
        age, seen, size = log_decay.cumsum(2), past(x), x.q.shape[2]
        first, last, _ = keys.indices(size)
        right = _decayed_products(q[:, :, rows], k, age[:, :, rows], age, seen[rows])
        solved: list[tuple[slice, Tensor]] = []
        for begin in range((size - 1) // 64 * 64, -1, -64):
            block = slice(begin, min(begin + 64, size))
            rest = right[..., block]
            for later, weights in solved:
                rest = rest - weights @ self._overlap(k, beta, age, seen, later, block)
            inner = self._overlap(k, beta, age, seen, block, block)
            solved.append((block, _unit_lower_solve(inner, rest, left=False)))
            if begin <= first:
                break
        done = torch.cat([weights for _, weights in reversed(solved)], -1)
        begin = solved[-1][0].start
        return done[..., first - begin : last - begin] * beta[:, :, keys].transpose(-1, -2)

    def _overlap(self, k: Tensor, beta: Tensor, age: Tensor, seen: Tensor, rows: slice, columns: slice) -> Tensor:
        """A block of tril(β KKᵀ ∘ D, -1)."""
        before = seen.tril(-1)[rows, columns]
        return beta[:, :, rows] * _decayed_products(
            k[:, :, rows], k[:, :, columns], age[:, :, rows], age[:, :, columns], before
        )

    def _parts(self, x: Inputs) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        assert x.v is not None
        q = widened(x.q) * (x.q.shape[-1] ** -0.5 if self.scale is None else self.scale)
        beta = extra(x, "beta", self.name)[..., None]
        log_decay = extra(x, "log_decay", self.name) if self.gated else torch.zeros_like(beta)
        if log_decay.shape[-1] != 1:
            raise ValueError(f"{self.name} decays the whole state by one number per token: log_decay is [B,H,T,1]")
        heads = q.shape[1]
        return q, per_head(x, x.k), per_head(x, x.v), beta.expand(-1, heads, -1, -1), _kept(x, log_decay)


def _unit_lower_solve(lower: Tensor, right: Tensor, left: bool = True) -> Tensor:
    """(I + L)⁻¹ R, or R (I + L)⁻¹; L strictly lower triangular."""
    system = lower + torch.eye(lower.shape[-1], dtype=lower.dtype, device=lower.device)
    return torch.linalg.solve_triangular(system, right, upper=False, left=left, unitriangular=True)
