"""Hard attention: one key, chosen or sampled."""

from __future__ import annotations

from regard.mechanism import Mask, Mechanism
from regard.parts.defaults import FULL, mechanism_with
from regard.parts.normalisers import Gumbel, Hard
from regard.zoo.card import Card

HARD = "Xu et al. 2015, Show, Attend and Tell, section 4.1 (its mode)"
GUMBEL = "Jang et al. 2017, Categorical Reparameterization with Gumbel-Softmax, section 2.2"


def hard(*, mask: Mask = FULL) -> Mechanism:
    """a = onehot(argmax s), ties to the earliest key. No gradient to the scores."""
    return mechanism_with("hard", HARD, normaliser=Hard(), mask=mask)


def gumbel(*, temperature: float = 1.0, seed: int = 0, mask: Mask = FULL) -> Mechanism:
    """One key sampled from softmax(s), learned through softmax((s + g) / T). The sample follows from `seed`."""
    return mechanism_with("gumbel", GUMBEL, normaliser=Gumbel(temperature, seed), mask=mask)


CARDS = (
    Card(
        name="hard",
        family="normalisers",
        line="The best key takes all.",
        equation="a_ij = [j = argmax_j s_ij]",
        source=HARD,
        time="O(n² d)",
        memory="O(n d)",
        attends="the one best key",
        factory=hard,
    ),
    Card(
        name="gumbel",
        family="normalisers",
        line="One key, drawn by lot in proportion to the softmax, with a gradient passed straight through.",
        equation="a = onehot(argmax(s + g)),  g = -log(-log u);  backward as softmax((s + g) / T)",
        source=GUMBEL,
        time="O(n² d)",
        memory="O(n d)",
        attends="one key by lot",
        factory=gumbel,
        example=lambda s: {"temperature": 0.7, "seed": 3},
    ),
)
