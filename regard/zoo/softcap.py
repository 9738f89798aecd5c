"""Softcapped attention: scores that saturate."""

from __future__ import annotations

from regard.mechanism import Mask, Mechanism
from regard.parts.defaults import FULL, mechanism_with
from regard.parts.scores import Dot, Softcap
from regard.zoo.card import Card

SOURCE = "Gemma 2 report 2024, section 2 (logit soft-capping); Bello et al. 2017, eq. 16"


def softcap(*, cap: float = 50.0, mask: Mask = FULL) -> Mechanism:
    """o = softmax(c tanh(q·k / (c √Dk))) v. cap c: no score exceeds it."""
    return mechanism_with("softcap", SOURCE, score=(Dot(), Softcap(cap)), mask=mask)


CARDS = (
    Card(
        name="softcap",
        family="scores",
        line="Scores are squeezed into ±c, so that no key can win by an unlimited margin.",
        equation="s = c tanh(q·k / (c √Dk)),  a = softmax(s)",
        source=SOURCE,
        time="O(n² d)",
        memory="O(n d)",
        attends="every key",
        factory=softcap,
        example=lambda s: {"cap": 2.0},
    ),
)
