"""The delta rule, plain and gated: states that overwrite what a key held."""

from __future__ import annotations

import torch

from regard.inputs import Inputs
from regard.parts.prepare import Normalise
from regard.recurrent import Delta
from regard.zoo.card import Card, Sizes

DELTA = "Yang et al. 2024, Parallelizing Linear Transformers with the Delta Rule, eq. 4; Schlag et al. 2021, eq. 23-24"
GATED = "Yang et al. 2025, Gated Delta Networks, eq. 10"


def delta() -> Delta:
    """S_t = (I - β k kᵀ) S_{t-1} + β k vᵀ, o = qᵀS, q and k of unit length; β: per_key["beta"] [B,H,T]."""
    return Delta("delta", DELTA, prepare=(Normalise(),))


def gated_delta() -> Delta:
    """S_t = α_t (I - β k kᵀ) S_{t-1} + β k vᵀ; log α: per_key["log_decay"] [B,H,T,1], β: per_key["beta"]."""
    return Delta("gated_delta", GATED, "state", prepare=(Normalise(),))


def _with_beta(x: Inputs, s: Sizes) -> Inputs:
    beta = s.normal(x.k.shape[0], x.q.shape[1], x.k.shape[2], seed=6).sigmoid()
    return x.replace(per_key={"beta": beta})


def _with_gates(x: Inputs, s: Sizes) -> Inputs:
    x = _with_beta(x, s)
    gate = s.normal(x.k.shape[0], x.q.shape[1], x.k.shape[2], 1, seed=7)
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
        attends="the past, as far as it was neither forgotten nor overwritten; signed weights",
        factory=gated_delta,
        arrange=_with_gates,
    ),
)
