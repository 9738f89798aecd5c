"""Sliding windows, dilated windows, and attention sinks."""

from __future__ import annotations

from regard.mechanism import Mechanism
from regard.parts import masks
from regard.parts.defaults import mechanism_with
from regard.zoo.card import Card

WINDOW = "Jiang et al. 2023, Mistral 7B, section 2; Beltagy et al. 2020, Longformer, section 3.1"
DILATED = "Beltagy et al. 2020, Longformer, section 3.1 (dilated sliding window)"
SINKS = "Xiao et al. 2024, Efficient Streaming Language Models with Attention Sinks, section 3.2"


def window(*, width: int) -> Mechanism:
    """The last `width` tokens, itself included: 0 <= p_i - p_j < width."""
    return mechanism_with("window", WINDOW, mask=masks.window(width))


def dilated(*, width: int, step: int) -> Mechanism:
    """`width` keys to either side, `step` apart."""
    return mechanism_with("dilated", DILATED, mask=masks.dilated(width, step))


def sinks(*, count: int) -> Mechanism:
    """The first `count` tokens alone, never the future."""
    return mechanism_with("sinks", SINKS, mask=masks.sinks(count))


def streaming(*, width: int, count: int = 4) -> Mechanism:
    """A window of `width` and the first `count` tokens, never the future."""
    return mechanism_with("streaming", SINKS, mask=masks.window(width) | masks.sinks(count))


CARDS = (
    Card(
        name="window",
        family="masks",
        line="Each token sees the last w tokens; farther ones reach it through the layers.",
        equation="mask(i, j) = 0 <= p_i - p_j < w",
        source=WINDOW,
        time="O(n w d)",
        memory="O(n d), cache w",
        attends="itself and the w - 1 tokens before",
        factory=window,
        example=lambda s: {"width": 3},
    ),
    Card(
        name="dilated",
        family="masks",
        line="A window with gaps: the same number of keys reach farther.",
        equation="mask(i, j) = |p_i - p_j| <= w s and (p_i - p_j) mod s = 0",
        source=DILATED,
        time="O(n w d)",
        memory="O(n d)",
        attends="every s-th token within w s to either side",
        factory=dilated,
        example=lambda s: {"width": 2, "step": 2},
    ),
    Card(
        name="sinks",
        family="masks",
        line="The first tokens, where models park attention they do not need.",
        equation="mask(i, j) = p_j < c and p_j <= p_i",
        source=SINKS,
        time="O(n c d)",
        memory="O(n d), cache c",
        attends="the first c tokens",
        factory=sinks,
        example=lambda s: {"count": 2},
    ),
    Card(
        name="streaming",
        family="masks",
        line="A window plus the first tokens, so that a model streams on without end.",
        equation="mask(i, j) = 0 <= p_i - p_j < w or (p_j < c and p_j <= p_i)",
        source=SINKS,
        time="O(n (w + c) d)",
        memory="O(n d), cache w + c",
        attends="the last w tokens and the first c",
        factory=streaming,
        example=lambda s: {"width": 2, "count": 1},
    ),
)
