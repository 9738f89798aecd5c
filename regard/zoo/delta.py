"""The delta rule, plain, gated, and gated by channel: states that overwrite what a key held."""

from __future__ import annotations

import torch

from regard.inputs import Inputs
from regard.parts.prepare import Normalise
from regard.recurrent import Delta
from regard.zoo.card import Card, Sizes

DELTA = "Yang et al. 2024, Parallelizing Linear Transformers with the Delta Rule, eq. 4; Schlag et al. 2021, eq. 23-24"
GATED = "Yang et al. 2025, Gated Delta Networks, eq. 10"
KDA = "Kimi Team 2025, Kimi Linear: An Expressive, Efficient Attention Architecture, eq. 1"


def delta() -> Delta:
    """S_t = (I - β k kᵀ) S_{t-1} + β k vᵀ, o = qᵀS, q and k of unit length; β: per_key["beta"] [B,H,T]."""
    return Delta("delta", DELTA, prepare=(Normalise(),))


def gated_delta() -> Delta:
    """S_t = α_t (I - β k kᵀ) S_{t-1} + β k vᵀ; log α: per_key["log_decay"] [B,H,T,1], β: per_key["beta"]."""
    return Delta("gated_delta", GATED, "state", prepare=(Normalise(),))


def kda() -> Delta:
    """S_t = (I - β k kᵀ) Diag(α_t) S_{t-1} + β k vᵀ, o = qᵀS: each channel of the key forgets at a rate of its own.

    log α: per_key["log_decay"] [B,H,T,Dk], β: per_key["beta"] [B,H,T]; q and k of unit length.
    """
    return Delta("kda", KDA, "channel", prepare=(Normalise(),))


def _with_beta(x: Inputs, s: Sizes) -> Inputs:
    beta = s.normal(x.k.shape[0], x.q.shape[1], x.k.shape[2], seed=6).sigmoid()
    return x.replace(per_key={"beta": beta})


def _with_gates(x: Inputs, s: Sizes) -> Inputs:
    return _with_decay(x, s, 1)


def _with_channels(x: Inputs, s: Sizes) -> Inputs:
    return _with_decay(x, s, x.k.shape[3])


def _with_decay(x: Inputs, s: Sizes, width: int) -> Inputs:
    x = _with_beta(x, s)
    gate = s.normal(x.k.shape[0], x.q.shape[1], x.k.shape[2], width, seed=7)
    return x.replace(per_key={**x.per_key, "log_decay": torch.nn.functional.logsigmoid(gate)})


CARDS = (
    Card(
        name="delta",
        family="recurrences",
        line="Before a value is stored, what its key held is taken away: a memory that can be rewritten.",
        equation="S_t = (I - β_t k_t k_tᵀ) S_{t-1} + β_t k_t v_tᵀ,  o_t = q_tᵀ S_t",
        source=DELTA,
        time="O(n d²)",
        memory="O(d²) state",
        stored="",
        attends="the past, as far as it was not overwritten; signed weights",
        factory=delta,
        arrange=_with_beta,
    ),
    Card(
        name="gated_delta",
        family="recurrences",
        line="The delta rule with a gate that can forget everything at once.",
        equation="S_t = α_t (I - β_t k_t k_tᵀ) S_{t-1} + β_t k_t v_tᵀ,  o_t = q_tᵀ S_t",
        source=GATED,
        time="O(n d²)",
        memory="O(d²) state",
        stored="",
        attends="the past, as far as it was neither forgotten nor overwritten; signed weights",
        factory=gated_delta,
        arrange=_with_gates,
    ),
    Card(
        name="kda",
        family="recurrences",
        line="Kimi delta attention: the delta rule with a gate for each channel of the key.",
        equation="S_t = (I - β_t k_t k_tᵀ) Diag(α_t) S_{t-1} + β_t k_t v_tᵀ,  o_t = q_tᵀ S_t",
        source=KDA,
        time="O(n d²)",
        memory="O(d²) state",
        stored="",
        attends="the past, as far as no channel forgot it and nothing overwrote it; signed weights",
        factory=kda,
        arrange=_with_channels,
    ),
)
