"""The delta rule: states in which a value replaces what its key held."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from regard.inputs import Inputs
from regard.mechanism import Prepare
from regard.parts.scores import widened
from regard.recurrent.ages import FINE, Ages
from regard.recurrent.recurrence import Recurrence, State, per_head, tokens, without_padding

BLOCK = 64  # columns of the effective weights that are solved for at once


@dataclass(frozen=True, eq=False)
class Delta(Recurrence):
    """S_t = (I - β_t k_t k_tᵀ) Diag(α_t) S_{t-1} + β_t k_t v_tᵀ, o_t = c q_tᵀ S_t: a value is replaced, not added to.

    β_t in (0, 1): per_key["beta"] [B,H,T]. decay: "state" (log α_t per token: per_key["log_decay"] [B,H,T,1]),
    "channel" ([B,H,T,Dk]), or None for α = 1. scale c: None for 1/√Dk. Keys of unit length.
    """

    name: str
    source: str
    decay: Literal["state", "channel"] | None = None
    scale: float | None = 1.0
    prepare: tuple[Prepare, ...] = ()

    def gates(self, x: Inputs) -> dict[str, tuple[int, ...] | None]:
        beta: dict[str, tuple[int, ...] | None] = {"beta": None}
        if self.decay is None:
            return beta
        return {**beta, "log_decay": (1,) if self.decay == "state" else (x.k.shape[-1],)}

    def start(self, x: Inputs) -> State:
        assert x.v is not None
        return widened(x.q).new_zeros(*x.q.shape[:2], x.q.shape[-1], x.v.shape[-1])

    def step(self, state: State, x: Inputs) -> tuple[State, Tensor]:
        q, k, v, beta, log_decay = self._parts(x)
        state = state * log_decay.exp().mT
        state = state + k.mT @ (beta * (v - k @ state))
        return state, q @ state

    def chunk(self, state: State, x: Inputs) -> tuple[State, Tensor]:
        size = FINE if self.decay == "channel" else x.q.shape[2]
        outputs = []
        for begin in range(0, x.q.shape[2], max(size, 1)):
            state, out = self._together(state, tokens(x, slice(begin, begin + size)))
            outputs.append(out)
        return state, torch.cat(outputs, 2)

    def _together(self, state: State, x: Inputs) -> tuple[State, Tensor]:
        """The values that are written, u_i = β_i (v_i - k_iᵀ Diag(α_i) S_{i-1}), solve a triangular system."""
        q, k, v, beta, log_decay = self._parts(x)
        ages = Ages.of(log_decay)
        left = ages.since_start()
        written = _solved(beta * ages.products(k, k, before=True), beta * (v - (k * left) @ state))
        out = (q * left) @ state + ages.products(q, k) @ written
        return state * left[:, :, -1:].mT + (k * ages.until_end()).mT @ written, out

    def effective_weights(self, x: Inputs, rows: slice, keys: slice) -> Tensor:
        """W = tril(QKᵀ ∘ A) (I + tril(β KKᵀ ∘ A, -1))⁻¹ Diag β, A_ij = Π_{j<l<=i} α_l, solved block by block."""
        q, k, _, beta, log_decay = self._parts(x)
        ages, size = Ages.of(log_decay), x.q.shape[2]
        first, last, _ = keys.indices(size)
        right = ages.products(q, k, rows)
        solved: list[tuple[slice, Tensor]] = []
        for begin in range((size - 1) // BLOCK * BLOCK, -1, -BLOCK):
            block = slice(begin, min(begin + BLOCK, size))
            rest = right[..., block]
            for later, weights in solved:
                rest = rest - weights @ (beta[:, :, later] * ages.products(k, k, later, block, before=True))
            inner = beta[:, :, block] * ages.products(k, k, block, block, before=True)
            solved.append((block, _solved(inner, rest, left=False)))
            if begin <= first:
                break
        done = torch.cat([weights for _, weights in reversed(solved)], -1)
        begin = solved[-1][0].start
        return done[..., first - begin : last - begin] * beta[:, :, keys].mT

    def _parts(self, x: Inputs) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        assert x.v is not None
        q = widened(x.q) * (x.q.shape[-1] ** -0.5 if self.scale is None else self.scale)
        beta = per_head(x, x.per_key["beta"])[..., None]
        log_decay = per_head(x, x.per_key["log_decay"]) if self.decay else torch.zeros_like(beta)
        return q, per_head(x, x.k), per_head(x, x.v), beta, without_padding(x, log_decay)


def _solved(below: Tensor, right: Tensor, left: bool = True) -> Tensor:
    """(I + L)⁻¹ R, or R (I + L)⁻¹; L strictly lower triangular."""
    system = below + torch.eye(below.shape[-1], dtype=below.dtype, device=below.device)
    return torch.linalg.solve_triangular(system, right, upper=False, left=left, unitriangular=True)
