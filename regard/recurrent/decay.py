"""States that keys and values are added to, and that fade: linear attention, retention, gated linear attention."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from regard.inputs import Inputs
from regard.mechanism import Prepare
from regard.parts.scores import widened
from regard.recurrent.ages import Ages, averaged, decayed_sums, shares, with_ones
from regard.recurrent.recurrence import Recurrence, State, per_head, without_padding


@dataclass(frozen=True, eq=False)
class Decay(Recurrence):
    """S_t = Diag(α_t) S_{t-1} + k_t v_tᵀ, o_t = c q_tᵀ S_t. α = 1: linear attention; α = γ_h: retention; else gated.

    decay: γ [heads] (constant), "gate" (log α_t per token: per_key["log_decay"], [B,H,T,Dk or 1]), or None for 1.
    normalise divides o_t by Σ_j W_tj (linear attention's denominator). scale c: None for 1/√Dk.
    """

    name: str
    source: str
    decay: Tensor | str | None = None
    normalise: bool = False
    scale: float | None = 1.0
    prepare: tuple[Prepare, ...] = ()

    def gates(self, x: Inputs) -> dict[str, tuple[int, ...] | None]:
        return {"log_decay": (1, x.k.shape[-1])} if isinstance(self.decay, str) else {}

    def start(self, x: Inputs) -> State:
        assert x.v is not None
        width = x.v.shape[-1] + self.normalise
        return widened(x.q).new_zeros(*x.q.shape[:2], x.q.shape[-1], width)

    def step(self, state: State, x: Inputs) -> tuple[State, Tensor]:
        q, k, v, log_decay = self._parts(x)
        state = state * log_decay.exp().mT + k.mT @ v
        return state, self._finished(q @ state)

    def chunk(self, state: State, x: Inputs) -> tuple[State, Tensor]:
        q, k, v, log_decay = self._parts(x)
        state, out = decayed_sums(state, q, k, v, log_decay)
        return state, self._finished(out)

    def effective_weights(self, x: Inputs, rows: slice, keys: slice) -> Tensor:
        q, k, _, log_decay = self._parts(x)
        if self.normalise:
            return shares(Ages.of(log_decay).products(q, k, rows))[..., keys]
        return Ages.of(log_decay).products(q, k, rows, keys)

    def _parts(self, x: Inputs) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Scaled q, k, v (with a column of ones for the denominator), and log α [B,H,T,Dk or 1]."""
        assert x.v is not None
        q = widened(x.q) * (x.q.shape[-1] ** -0.5 if self.scale is None else self.scale)
        k, v = per_head(x, x.k), per_head(x, x.v)
        v = with_ones(v) if self.normalise else v
        return q, k, v, without_padding(x, self._log_decay(x, q))

    def _log_decay(self, x: Inputs, q: Tensor) -> Tensor:
        if self.decay is None:
            return torch.zeros_like(q[..., :1])
        if isinstance(self.decay, Tensor):
            return self.decay.to(q.dtype).log()[None, :, None, None].expand(*q.shape[:3], 1)
        return per_head(x, x.per_key["log_decay"])

    def _finished(self, out: Tensor) -> Tensor:
        return averaged(out) if self.normalise else out
