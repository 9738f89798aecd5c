"""Retention and gated linear attention: states that forget."""

from __future__ import annotations

import torch
from torch import Tensor

from regard.errors import UserError
from regard.inputs import Inputs
from regard.recurrent import Decay
from regard.zoo.card import Card, Sizes

RETENTION = "Sun et al. 2023, Retentive Network, eq. 5-6"
GLA = "Yang et al. 2024, Gated Linear Attention Transformers, eq. 3"


def retention(*, gamma: Tensor) -> Decay:
    """S_t = γ_h S_{t-1} + k vᵀ, o = qᵀS / √Dk. gamma γ: [heads] in (0, 1]; the paper: 1 - 2^{-5-h}."""
    if not bool(((gamma > 0) & (gamma <= 1)).all()):
        raise UserError(f"retention forgets by a factor in (0, 1] per token, got {gamma.tolist()}")
    return Decay("retention", RETENTION, decay=gamma, scale=None)


def gla() -> Decay:
    """S_t = Diag(α_t) S_{t-1} + k vᵀ, o = qᵀS / √Dk; log α comes per token: per_key["log_decay"] [B,H,T,Dk]."""
    return Decay("gla", GLA, decay="gate", scale=None)


def _gated(x: Inputs, s: Sizes) -> Inputs:
    gate = s.normal(x.k.shape[0], x.q.shape[1], x.k.shape[2], x.k.shape[3], seed=5)
    return x.replace(per_key={"log_decay": torch.nn.functional.logsigmoid(gate)})


CARDS = (
    Card(
        name="retention",
        family="recurrences",
        line="A state that fades by a constant per head: attention as a discounted sum.",
        equation="S_t = γ_h S_{t-1} + k_t v_tᵀ,  o_t = q_tᵀ S_t / √Dk",
        source=RETENTION,
        time="O(n d²)",
        memory="O(d²) state",
        stored="",
        attends="the past, fading; signed weights",
        factory=retention,
        example=lambda s: {"gamma": 1 - 2.0 ** -(1 + torch.arange(s.heads, dtype=s.dtype))},
        parameters={"gamma": "[H]: fixed, not learned, in the paper"},
    ),
    Card(
        name="gla",
        family="recurrences",
        line="A state whose every dimension forgets at a rate that each token decides.",
        equation="S_t = Diag(α_t) S_{t-1} + k_t v_tᵀ,  o_t = q_tᵀ S_t / √Dk",
        source=GLA,
        time="O(n d²)",
        memory="O(d²) state",
        stored="",
        attends="the past, as far as the gates kept it; signed weights",
        factory=gla,
        arrange=_gated,
    ),
)
