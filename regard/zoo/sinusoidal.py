"""Sinusoidal and learned absolute positions, added before the score."""

from __future__ import annotations

from torch import Tensor

from regard.mechanism import Mask, Mechanism
from regard.parts.defaults import FULL, mechanism_with
from regard.parts.prepare import AddPositions
from regard.zoo.card import Card

SINUSOIDAL = "Vaswani et al. 2017, Attention Is All You Need, section 3.5"
LEARNED = "Gehring et al. 2017, Convolutional Sequence to Sequence Learning, section 3.1"


def sinusoidal(*, values: bool = False, mask: Mask = FULL) -> Mechanism:
    """q ← q + PE(p), k ← k + PE(p), PE(p)_{2m} = sin(p / 10000^{2m/D}). values=True adds it to v as well."""
    return mechanism_with("sinusoidal", SINUSOIDAL, prepare=(AddPositions(values=values),), mask=mask)


def learned_positions(*, table: Tensor, values: bool = False, mask: Mask = FULL) -> Mechanism:
    """q ← q + P[p], k ← k + P[p]. table P: [positions, Dk]."""
    return mechanism_with("learned_positions", LEARNED, prepare=(AddPositions(table, values),), mask=mask)


CARDS = (
    Card(
        name="sinusoidal",
        family="positions",
        line="Waves of many lengths, added to each token, say where it stands.",
        equation="x_p ← x_p + PE(p),  PE(p)_{2m} = sin(p / 10000^{2m/D}),  PE(p)_{2m+1} = cos(…)",
        source=SINUSOIDAL,
        time="O(n² d)",
        memory="O(n d)",
        attends="every key",
        factory=sinusoidal,
    ),
    Card(
        name="learned_positions",
        family="positions",
        line="A learned vector per position is added to each token; none beyond the table.",
        equation="x_p ← x_p + P[p]",
        source=LEARNED,
        time="O(n² d)",
        memory="O(n d)",
        attends="every key, up to the table's length",
        factory=learned_positions,
        example=lambda s: {"table": s.normal(2 * (s.queries + s.keys), s.key_width)},
        parameters={"table": "[positions,D]: a vector per position"},
    ),
)
