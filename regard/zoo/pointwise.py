"""Normalisers that judge each key alone: sigmoid and ReLU."""

from __future__ import annotations

from regard.mechanism import Mask, Mechanism
from regard.parts.defaults import FULL, mechanism_with
from regard.parts.normalisers import Relu, Sigmoid
from regard.zoo.card import Card

SIGMOID = "Ramapuram et al. 2024, Theory, Analysis, and Best Practices for Sigmoid Self-Attention, eq. 2"
RELU = "Wortsman et al. 2023, Replacing softmax with ReLU in Vision Transformers, section 3"


def sigmoid(*, bias: float = 0.0, mask: Mask = FULL) -> Mechanism:
    """a_ij = σ(q·k / √Dk + b). bias b: the paper starts it at -log n."""
    return mechanism_with("sigmoid", SIGMOID, normaliser=Sigmoid(bias), mask=mask)


def relu(*, mask: Mask = FULL) -> Mechanism:
    """a_ij = max(q·k / √Dk, 0) / n, n the keys that i may see."""
    return mechanism_with("relu", RELU, normaliser=Relu(), mask=mask)


CARDS = (
    Card(
        name="sigmoid",
        family="normalisers",
        line="Each key is judged alone; no key takes attention from another.",
        equation="a_ij = σ(q_i·k_j / √Dk + b)",
        source=SIGMOID,
        time="O(n² d)",
        memory="O(n d)",
        attends="every key, rows need not sum to 1",
        factory=sigmoid,
        example=lambda s: {"bias": -1.5},
    ),
    Card(
        name="relu",
        family="normalisers",
        line="Negative scores count nothing, positive ones as they are, divided by the length.",
        equation="a_ij = max(q_i·k_j / √Dk, 0) / n",
        source=RELU,
        time="O(n² d)",
        memory="O(n d)",
        attends="every key with a positive score",
        factory=relu,
    ),
)
