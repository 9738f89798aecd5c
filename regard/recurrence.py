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

from regard.inputs import Inputs, without_invalid
from regard.mechanism import Prepare
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


def lower(like: Tensor, size: int) -> Tensor:
    """bool [size,size]: j <= i, where `like` is."""
    return torch.ones(size, size, dtype=torch.bool, device=like.device).tril()


# ---- S_t = Diag(α_t) S_{t-1} + k_t v_tᵀ ------------------------------------------------------------------------------


FINE = 16  # tokens at a time where each channel decays by itself: their products take FINE · Dk numbers per token


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
        state, out = decayed_sums(state, q, k, v, log_decay)
        return state, self._finished(out)

    def effective_weights(self, x: Inputs, rows: slice, keys: slice) -> Tensor:
        q, k, _, log_decay = self._parts(x)
        if self.normalise:
            return shares(decayed_weights(q, k, log_decay, rows, slice(None)))[..., keys]
        return decayed_weights(q, k, log_decay, rows, keys)

    def _parts(self, x: Inputs) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Scaled q, k, v (with a column of ones for the denominator), and log α [B,H,T,Dk or 1]."""
        assert x.v is not None
        q = widened(x.q) * (x.q.shape[-1] ** -0.5 if self.scale is None else self.scale)
        k, v = per_head(x, x.k), per_head(x, x.v)
        v = counted(v) if self.normalise else v
        return q, k, v, _kept(x, self._log_decay(x, q))

    def _log_decay(self, x: Inputs, q: Tensor) -> Tensor:
        if self.decay is None:
            return torch.zeros_like(q[..., :1])
        if isinstance(self.decay, Tensor):
            return self.decay.to(q.dtype).log()[None, :, None, None].expand(*q.shape[:3], 1)
        return extra(x, "log_decay", self.name)

    def _finished(self, out: Tensor) -> Tensor:
        return averaged(out) if self.normalise else out


def decayed_sums(state: Tensor, q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor) -> tuple[Tensor, Tensor]:
    """S_T and o_t = q_tᵀ S_t for S_t = Diag(α_t) S_{t-1} + k_t v_tᵀ, many tokens at once."""
    size = q.shape[2] if log_decay.shape[-1] == 1 else FINE
    outputs = []
    for part in (slice(begin, begin + size) for begin in range(0, q.shape[2], max(size, 1))):
        some_q, some_k, some_v = q[:, :, part], k[:, :, part], v[:, :, part]
        age = log_decay[:, :, part].cumsum(2)
        inside = _decayed_products(some_q, some_k, age, age, lower(q, some_q.shape[2]))
        outputs.append((some_q * age.exp()) @ state + inside @ some_v)
        last = age[:, :, -1:]
        state = state * last.exp().mT + (some_k * (last - age).exp()).mT @ some_v
    return state, torch.cat(outputs, 2)


def decayed_weights(q: Tensor, k: Tensor, log_decay: Tensor, rows: slice, keys: slice) -> Tensor:
    """q_iᵀ (Π_{j<t<=i} Diag(α_t)) k_j of a rectangle."""
    age, seen = log_decay.cumsum(2), lower(q, q.shape[2])[rows, keys]
    return _decayed_products(q[:, :, rows], k[:, :, keys], age[:, :, rows], age[:, :, keys], seen)


def averaged(out: Tensor) -> Tensor:
    """Sums of values by the sum of their weights, which stands in the last column; 0 where there is none."""
    total = out[..., -1:]
    return out[..., :-1] / total.masked_fill(total == 0, 1.0)


def shares(weights: Tensor) -> Tensor:
    """Rows divided by their sums; a row of zeros stays."""
    total = weights.sum(-1, keepdim=True)
    return weights / total.masked_fill(total == 0, 1.0)


def counted(v: Tensor) -> Tensor:
    """Values with a column of ones, whose sum is that of the weights."""
    return torch.cat([v, torch.ones_like(v[..., :1])], -1)


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
        age, seen = log_decay.cumsum(2), lower(q, x.q.shape[2])
        overlap = beta * _decayed_products(k, k, age, age, seen.tril(-1))
        written = _unit_lower_solve(overlap, beta * (v - (k * age.exp()) @ state))
        out = (q * age.exp()) @ state + _decayed_products(q, k, age, age, seen) @ written
        rest = (age[:, :, -1:] - age).exp()
        return state * age[:, :, -1:].exp() + (k * rest).transpose(-1, -2) @ written, out

    def effective_weights(self, x: Inputs, rows: slice, keys: slice) -> Tensor:
        """W = tril(QKᵀ ∘ D) (I + tril(β KKᵀ ∘ D, -1))⁻¹ Diag β, D_ij = Π_{j<l<=i} α_l, solved block by block."""
        q, k, _, beta, log_decay = self._parts(x)
        age, seen, size = log_decay.cumsum(2), lower(q, x.q.shape[2]), x.q.shape[2]
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
