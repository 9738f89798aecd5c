"""Dot-product attention without scaling."""

from __future__ import annotations

from regard.mechanism import Mask, Mechanism
from regard.parts.defaults import FULL, mechanism_with
from regard.parts.scores import Dot
from regard.zoo.card import Card

SOURCE = "Luong et al. 2015, Effective Approaches to Attention-based NMT, section 3.1 (dot)"


def dot(*, mask: Mask = FULL) -> Mechanism:
    """o = softmax(q·k) v."""
    return mechanism_with("dot", SOURCE, score=(Dot(1.0),), mask=mask)


CARDS = (
    Card(
        name="dot",
        family="scores",
        line="How much query and key point the same way, unscaled.",
        equation="s = qᵀ k,  a = softmax(s),  o = a v",
        source=SOURCE,
        time="O(n² d)",
        memory="O(n d)",
        attends="every key",
        factory=dot,
    ),
)
