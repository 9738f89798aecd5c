"""Differential attention: one softmax subtracted from another."""

from __future__ import annotations

import torch
from torch import Tensor

from regard.mechanism import Mask, Mechanism
from regard.parts.adjusts import Subtract
from regard.parts.defaults import FULL, mechanism_with
from regard.parts.prepare import SplitHeads
from regard.zoo.card import Card

SOURCE = "Ye et al. 2024, Differential Transformer, eq. 1-3"


def differential(*, share: float | Tensor = 0.8, mask: Mask = FULL) -> Mechanism:
    """o = (softmax(q₁ k₁ᵀ / √d) - λ softmax(q₂ k₂ᵀ / √d)) v; q, k of width 2d hold both halves. share λ: or [heads].

    The paper's norm per head and factor (1 - λ_init) belong to the layer.
    """
    return mechanism_with("differential", SOURCE, prepare=(SplitHeads(2),), adjust=(Subtract(share),), mask=mask)


CARDS = (
    Card(
        name="differential",
        family="compositions",
        line="Two softmaxes, and what both see is cancelled like noise.",
        equation="a = softmax(q₁ k₁ᵀ / √d) - λ softmax(q₂ k₂ᵀ / √d),  o = a v",
        source=SOURCE,
        time="O(n² d)",
        memory="O(n d)",
        attends="every key; signed weights, rows sum to 1 - λ",
        factory=differential,
        example=lambda s: {"share": torch.linspace(0.2, 0.8, s.heads, dtype=s.dtype)},
        parameters={"share": "[H]: λ of each head"},
    ),
)
