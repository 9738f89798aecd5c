"""Talking heads: heads mix before and after the softmax."""

from __future__ import annotations

from torch import Tensor

from regard.mechanism import Mask, Mechanism
from regard.parts.adjusts import MixWeights
from regard.parts.defaults import FULL, mechanism_with
from regard.parts.scores import Dot, MixScores
from regard.zoo.card import Card

SOURCE = "Shazeer et al. 2020, Talking-Heads Attention, section 3"


def talking_heads(*, before: Tensor, after: Tensor, mask: Mask = FULL) -> Mechanism:
    """a = U softmax(L s): s per head mixed by L before, weights by U after. before [H',H], after [H'',H']."""
    return mechanism_with(
        "talking_heads", SOURCE, score=(Dot(), MixScores(before)), adjust=(MixWeights(after),), mask=mask
    )


CARDS = (
    Card(
        name="talking_heads",
        family="compositions",
        line="Heads exchange scores before the softmax and weights after it.",
        equation="s'_h = Σ_g L_hg s_g,  a'_h = Σ_g U_hg softmax(s')_g",
        source=SOURCE,
        time="O(n² (d H + H²))",
        memory="O(n d)",
        attends="every key; signed weights",
        factory=talking_heads,
        example=lambda s: {"before": s.normal(s.heads, s.heads, seed=1), "after": s.normal(s.heads, s.heads, seed=2)},
        parameters={"before": "[H,H]: mixes scores", "after": "[H,H]: mixes weights"},
    ),
)
