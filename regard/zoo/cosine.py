"""Cosine attention and QK-norm: only the directions of query and key count."""

from __future__ import annotations

import torch
from torch import Tensor

from regard.mechanism import Mask, Mechanism
from regard.parts.defaults import FULL, mechanism_with
from regard.parts.prepare import Normalise
from regard.parts.scores import Dot
from regard.zoo.card import Card

COSINE = "Graves et al. 2014, Neural Turing Machines, eq. 5-6"
QK_NORM = "Henry et al. 2020, Query-Key Normalization for Transformers, eq. 4"


def cosine(*, sharpness: float = 1.0, mask: Mask = FULL) -> Mechanism:
    """o = softmax(β cos(q, k)) v. sharpness β."""
    return mechanism_with("cosine", COSINE, prepare=(Normalise(),), score=(Dot(sharpness),), mask=mask)


def qk_norm(*, gain: float | Tensor = 10.0, mask: Mask = FULL) -> Mechanism:
    """o = softmax(g · q̂·k̂) v. gain g: learned, a number or [heads]; the paper starts it at log2(n² - n)."""
    return mechanism_with("qk_norm", QK_NORM, prepare=(Normalise(),), score=(Dot(gain),), mask=mask)


CARDS = (
    Card(
        name="cosine",
        family="scores",
        line="The cosine of the angle between query and key, sharpened: lengths do not matter.",
        equation="s = β qᵀk / (‖q‖‖k‖),  a = softmax(s)",
        source=COSINE,
        time="O(n² d)",
        memory="O(n d)",
        attends="every key",
        factory=cosine,
        example=lambda s: {"sharpness": 3.0},
    ),
    Card(
        name="qk_norm",
        family="scores",
        line="Queries and keys of unit length and a learned gain per head: scores cannot run away in training.",
        equation="s = g_h q̂ᵀk̂,  a = softmax(s)",
        source=QK_NORM,
        time="O(n² d)",
        memory="O(n d)",
        attends="every key",
        factory=qk_norm,
        example=lambda s: {"gain": 5 + torch.arange(s.heads, dtype=s.dtype)},
        parameters={"gain": "[H]: the sharpness of each head"},
    ),
)
