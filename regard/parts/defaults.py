"""A mechanism with the standard parts wherever none is given: scaled dot product, no mask, softmax, weighted sum."""

from __future__ import annotations

from regard.mechanism import Adjust, Mask, Mechanism, Mix, Normaliser, Prepare, Score
from regard.parts.masks import Full
from regard.parts.mixes import WeightedSum
from regard.parts.normalisers import Softmax
from regard.parts.scores import Dot

FULL = Full()
SOFTMAX = Softmax()
WEIGHTED_SUM = WeightedSum()
SCALED_DOT = (Dot(),)


def mechanism_with(
    name: str,
    source: str,
    *,
    prepare: tuple[Prepare, ...] = (),
    score: tuple[Score, ...] = SCALED_DOT,
    mask: Mask = FULL,
    normaliser: Normaliser = SOFTMAX,
    adjust: tuple[Adjust, ...] = (),
    mix: Mix | None = WEIGHTED_SUM,
) -> Mechanism:
    """softmax(q·k / √Dk) v (Vaswani 2017, eq. 1), with these parts in place of its own."""
    return Mechanism(name, source, score, mask, normaliser, prepare, adjust, mix)
