"""Scaled dot-product attention, the plain form that all others vary."""

from __future__ import annotations

from regard.mechanism import Mask, Mechanism
from regard.parts.defaults import FULL, mechanism_with
from regard.parts.scores import Dot
from regard.zoo.card import Card

SOURCE = "Vaswani et al. 2017, Attention Is All You Need, eq. 1"


def scaled_dot(*, scale: float | None = None, mask: Mask = FULL) -> Mechanism:
    """o = softmax(q·k / √Dk) v. scale: in place of 1/√Dk."""
    return mechanism_with("scaled_dot", SOURCE, score=(Dot(scale),), mask=mask)


CARDS = (
    Card(
        name="scaled_dot",
        family="scores",
        line="The dot product of query and key, divided by √Dk so that it stays of order one.",
        equation="a = softmax(q kᵀ / √Dk),  o = a v",
        source=SOURCE,
        time="O(n² d)",
        memory="O(n d)",
        attends="every key",
        factory=scaled_dot,
    ),
)
