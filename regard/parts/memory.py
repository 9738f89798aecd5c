"""A memory that learns while it reads: Titans' neural memory as a recurrence."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import silu

from regard.mechanism import Inputs, Prepare
from regard.parts.scores import widened
from regard.recurrence import NotObservable, State, extra, per_head, tokens


@dataclass(frozen=True, eq=False)
class NeuralMemory:
    """M_t = (1 - α_t) M_{t-1} + S_t, S_t = η_t S_{t-1} - θ_t ∇ℓ(M_{t-1}; k_t, v_t), o_t = M_t(q_t), where
    ℓ(M; k, v) = ‖M(k) - v‖² (Titans: Behrouz 2025, eq. 12-15).

    M(k) = silu(k W_1) W_2, or k W_1 without w_2. Start: w_1 [H,Dk,M], w_2 [H,M,Dv] or None (then M = Dv).
    Gates in (0, 1), per token: per_key "forget" α, "momentum" η, "rate" θ, each [B,H,T].
    """

    name: str
    source: str
    w_1: Tensor
    w_2: Tensor | None = None
    prepare: tuple[Prepare, ...] = ()
    linear_in_values: bool = False

    def start(self, x: Inputs) -> State:
        layers = [self.w_1] if self.w_2 is None else [self.w_1, self.w_2]
        if self.w_1.shape[0] != x.q.shape[1] or self.w_1.shape[1] != x.q.shape[-1]:
            raise ValueError(f"{self.name}: w_1 {list(self.w_1.shape)} does not fit queries {list(x.q.shape)}")
        weights = tuple(w.to(widened(x.q).dtype).expand(x.q.shape[0], *w.shape) for w in layers)
        return weights, tuple(torch.zeros_like(w) for w in weights)

    def step(self, state: State, x: Inputs) -> tuple[State, Tensor]:
        assert x.v is not None
        weights, momentum = state
        alpha, eta, theta = (extra(x, gate, self.name)[..., None] for gate in ("forget", "momentum", "rate"))
        slopes = self._slopes(weights, per_head(x, x.k), per_head(x, x.v))
        moved = tuple(eta * m - theta * slope for m, slope in zip(momentum, slopes, strict=True))
        learned = tuple((1 - alpha) * w + m for w, m in zip(weights, moved, strict=True))
        if x.key_valid is not None:
            valid = x.key_valid[:, None, :, None]
            moved = tuple(torch.where(valid, new, old) for new, old in zip(moved, momentum, strict=True))
            learned = tuple(torch.where(valid, new, old) for new, old in zip(learned, weights, strict=True))
        return (learned, moved), self._read(learned, widened(x.q))

    def chunk(self, state: State, x: Inputs) -> tuple[State, Tensor]:
        outputs = []
        for t in range(x.q.shape[2]):
            state, out = self.step(state, tokens(x, slice(t, t + 1)))
            outputs.append(out)
        return state, torch.cat(outputs, 2)

    def effective_weights(self, x: Inputs, rows: slice, keys: slice) -> Tensor:
        raise NotObservable(
            f"{self.name} has no attention weights, not even effective ones: each value enters through the gradient "
            "of a loss at a memory that earlier values changed, so the output is not a weighted sum of values"
        )

    def _read(self, weights: tuple[Tensor, ...], q: Tensor) -> Tensor:
        hidden = q @ weights[0]
        return hidden if len(weights) == 1 else silu(hidden) @ weights[1]

    def _slopes(self, weights: tuple[Tensor, ...], k: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        """∇ℓ for one token, written out so that it is itself differentiable."""
        hidden = k @ weights[0]
        if len(weights) == 1:
            return (k.transpose(-1, -2) @ (2 * (hidden - v)),)
        gate = hidden.sigmoid()
        active = hidden * gate
        error = 2 * (active @ weights[1] - v)
        back = (error @ weights[1].transpose(-1, -2)) * (gate + active * (1 - gate))
        return k.transpose(-1, -2) @ back, active.transpose(-1, -2) @ error
