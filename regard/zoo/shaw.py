"""Relative positions in keys and values."""

from __future__ import annotations

from torch import Tensor

from regard.mechanism import Mask, Mechanism
from regard.parts.defaults import FULL, mechanism_with
from regard.parts.mixes import RelativeValues, WeightedSum
from regard.parts.relative import RelativeKeys
from regard.parts.scores import Dot
from regard.zoo.card import Card

SOURCE = "Shaw et al. 2018, Self-Attention with Relative Position Representations, eq. 3-4"


def shaw(*, keys: Tensor, values: Tensor | None = None, mask: Mask = FULL) -> Mechanism:
    """o_i = Σ_j a_ij (v_j + r^V), s_ij = q·(k_j + r^K) / √Dk, r by the clipped distance. keys [2R+1,Dk], values."""
    mix = WeightedSum() if values is None else RelativeValues(values)
    return mechanism_with("shaw", SOURCE, score=(Dot(), RelativeKeys(keys)), mask=mask, mix=mix)


CARDS = (
    Card(
        name="shaw",
        family="scores",
        line="A learned vector for each distance up to R is added to the key, and to the value.",
        equation="s_ij = q_i·(k_j + r^K_{j-i}) / √Dk,  o_i = Σ_j a_ij (v_j + r^V_{j-i}),  distances clipped to ±R",
        source=SOURCE,
        time="O(n² d + n R d)",
        memory="O(n (d + R))",
        attends="every key",
        factory=shaw,
        example=lambda s: {"keys": s.normal(5, s.key_width, seed=1), "values": s.normal(5, s.value_width, seed=2)},
        parameters={"keys": "[2R+1,Dk]: a key per distance", "values": "[2R+1,Dv]: a value per distance"},
    ),
)
