"""Sparse Transformer: strided and fixed factorised attention, both of its heads' patterns in one."""

from __future__ import annotations

from math import isqrt

from regard.mechanism import Mechanism
from regard.parts import masks
from regard.parts.defaults import mechanism_with
from regard.zoo.card import Card

STRIDED = "Child et al. 2019, Generating Long Sequences with Sparse Transformers, section 4.3 (strided)"
FIXED = "Child et al. 2019, Generating Long Sequences with Sparse Transformers, section 4.3 (fixed)"


def strided(*, stride: int) -> Mechanism:
    """Causal: the last `stride` tokens, and every stride-th before."""
    return mechanism_with("strided", STRIDED, mask=masks.causal() & (masks.window(stride) | masks.every(stride)))


def fixed(*, stride: int, summary: int = 1) -> Mechanism:
    """Causal: its own chunk of `stride` tokens, and the last `summary` tokens of every chunk."""
    mask = masks.causal() & (masks.chunk(stride) | masks.summary(stride, summary))
    return mechanism_with("fixed", FIXED, mask=mask)


CARDS = (
    Card(
        name="strided",
        family="masks",
        line="The recent past in full, the rest at every l-th token: two steps reach anything.",
        equation="mask(i, j) = p_j <= p_i and (p_i - p_j < l or (p_i - p_j) mod l = 0)",
        source=STRIDED,
        time="O(n √n d) with l ≈ √n",
        memory="O(n d)",
        attends="the last l tokens and every l-th before",
        factory=strided,
        example=lambda s: {"stride": max(2, isqrt(s.keys))},
    ),
    Card(
        name="fixed",
        family="masks",
        line="Its own chunk in full, and the last cells of every chunk as summaries.",
        equation="mask(i, j) = p_j <= p_i and (⌊p_i/l⌋ = ⌊p_j/l⌋ or p_j mod l >= l - c)",
        source=FIXED,
        time="O(n √n d) with l ≈ √n",
        memory="O(n d)",
        attends="its chunk so far and the last c tokens of each chunk",
        factory=fixed,
        example=lambda s: {"stride": max(2, isqrt(s.keys)), "summary": 1},
    ),
)
