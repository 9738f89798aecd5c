"""Gaussian (L2) attention: near means alike."""

from __future__ import annotations

from torch import Tensor

from regard.mechanism import Mask, Mechanism
from regard.parts.defaults import FULL, mechanism_with
from regard.parts.scores import Euclidean
from regard.zoo.card import Card

SOURCE = "Kim et al. 2021, The Lipschitz Constant of Self-Attention, eq. 6 (L2); Tsai et al. 2019 (RBF kernel)"


def gaussian(*, gamma: float | Tensor = 0.5, mask: Mask = FULL) -> Mechanism:
    """o = softmax(-γ ‖q - k‖²) v. gamma γ = 1 / 2σ²: a number or [heads]."""
    return mechanism_with("gaussian", SOURCE, score=(Euclidean(gamma),), mask=mask)


CARDS = (
    Card(
        name="gaussian",
        family="scores",
        line="A bell curve of the distance between query and key.",
        equation="s = -γ ‖q - k‖²,  a = softmax(s)",
        source=SOURCE,
        time="O(n² d)",
        memory="O(n d)",
        attends="every key",
        factory=gaussian,
        example=lambda s: {"gamma": s.normal(s.heads).abs()},
        parameters={"gamma": "[H] or a number: how narrow the bell is"},
    ),
)
