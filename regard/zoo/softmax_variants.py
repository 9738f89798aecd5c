"""Softmax with something added: a sink, a temperature, only the best keys."""

from __future__ import annotations

from torch import Tensor

from regard.mechanism import Mask, Mechanism
from regard.parts.defaults import FULL, mechanism_with
from regard.parts.normalisers import Softmax, TopK
from regard.parts.prepare import Temperature
from regard.zoo.card import Card

OFF_BY_ONE = "Miller 2023, Attention Is Off By One; Xiao et al. 2024, eq. 2 (zero sink)"
SINK = "OpenAI 2025, gpt-oss-120b & gpt-oss-20b Model Card, section 2.2 (a learned bias in the softmax's denominator)"
TOPK = "Zhao et al. 2019, Explicit Sparse Transformer, eq. 5-6; Gupta et al. 2021"
TEMPERATURE = "Hinton et al. 2015, Distilling the Knowledge in a Neural Network, eq. 1"


def off_by_one(*, mask: Mask = FULL) -> Mechanism:
    """a = e^s / (1 + Σ e^s): a head may attend to nothing."""
    return mechanism_with("off_by_one", OFF_BY_ONE, normaliser=Softmax(0.0), mask=mask)


def learned_sink(*, sink: Tensor, mask: Mask = FULL) -> Mechanism:
    """a = e^s / (e^{σ_h} + Σ e^s). sink σ: a learned logit per head [heads]."""
    return mechanism_with("learned_sink", SINK, normaliser=Softmax(sink), mask=mask)


def topk(*, k: int, mask: Mask = FULL) -> Mechanism:
    """Softmax over the k best keys of each query; ties go to the earliest."""
    return mechanism_with("topk", TOPK, normaliser=TopK(k), mask=mask)


def temperature(*, value: float, mask: Mask = FULL) -> Mechanism:
    """a = softmax(q·k / (T √Dk)): above 1 flatter, below 1 sharper."""
    return mechanism_with("temperature", TEMPERATURE, prepare=(Temperature(value),), mask=mask)


CARDS = (
    Card(
        name="off_by_one",
        family="normalisers",
        line="One is added below the fraction, so that a head with nothing to say may stay silent.",
        equation="a_ij = e^{s_ij} / (1 + Σ_j e^{s_ij})",
        source=OFF_BY_ONE,
        time="O(n² d)",
        memory="O(n d)",
        attends="every key, or nothing at all",
        factory=off_by_one,
    ),
    Card(
        name="learned_sink",
        family="normalisers",
        line="Each head has a logit of its own that takes the mass it does not want to give.",
        equation="a_ij = e^{s_ij} / (e^{σ_h} + Σ_j e^{s_ij})",
        source=SINK,
        time="O(n² d)",
        memory="O(n d)",
        attends="every key, or nothing at all",
        factory=learned_sink,
        example=lambda s: {"sink": s.normal(s.heads)},
        parameters={"sink": "[H]: the logit of attending to nothing"},
    ),
    Card(
        name="topk",
        family="normalisers",
        line="Only the k highest scores of a row take part.",
        equation="a_i = softmax(s_i restricted to its k largest)",
        source=TOPK,
        time="O(n² d)",
        memory="O(n d)",
        attends="the k best keys",
        factory=topk,
        example=lambda s: {"k": 2},
    ),
    Card(
        name="temperature",
        family="normalisers",
        line="Scores divided by T before the softmax: hot is flat, cold is sharp.",
        equation="a = softmax(q kᵀ / (T √Dk))",
        source=TEMPERATURE,
        time="O(n² d)",
        memory="O(n d)",
        attends="every key",
        factory=temperature,
        example=lambda s: {"value": 0.5},
    ),
)
