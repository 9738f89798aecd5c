"""ALiBi: a straight-line penalty on distance."""

from __future__ import annotations

from torch import Tensor

from regard.mechanism import Mask, Mechanism
from regard.parts.defaults import mechanism_with
from regard.parts.masks import causal
from regard.parts.relative import Alibi
from regard.parts.scores import Dot, Slope
from regard.zoo.card import Card

SOURCE = "Press et al. 2022, Train Short, Test Long, section 3"


CAUSAL = causal()


def alibi(*, slopes: Tensor | None = None, mask: Mask = CAUSAL) -> Mechanism:
    """s_ij = q·k / √Dk + m_h (p_j - p_i). slopes m: [heads], by default 2^{-8h/H}. Causal, as in the paper: of keys
    behind the query the term would favour the furthest."""
    term = Alibi() if slopes is None else Slope(slopes)
    return mechanism_with("alibi", SOURCE, score=(Dot(), term), mask=mask)


CARDS = (
    Card(
        name="alibi",
        family="positions",
        line="The further back a key, the lower its score, at a rate of its own for each head.",
        equation="s_ij = q_i·k_j / √Dk + m_h (p_j - p_i),  m_h = 2^{-8h/H}",
        source=SOURCE,
        time="O(n² d)",
        memory="O(n d)",
        attends="itself and the past, near keys more",
        factory=alibi,
    ),
)
