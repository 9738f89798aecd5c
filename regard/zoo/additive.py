"""Additive attention: a small network scores each pair."""

from __future__ import annotations

from torch import Tensor

from regard.mechanism import Mask, Mechanism
from regard.parts.defaults import FULL, mechanism_with
from regard.parts.prepare import Project
from regard.parts.scores import Additive
from regard.zoo.card import Card

SOURCE = "Bahdanau et al. 2015, NMT by Jointly Learning to Align and Translate, appendix A.1.2"


def additive(*, w_q: Tensor, w_k: Tensor, v: Tensor, mask: Mask = FULL) -> Mechanism:
    """o = softmax(vᵀ tanh(W_q q + W_k k)) v. w_q [Dq,M], w_k [Dk,M] (or [H,…]), v [M] or [H,M]."""
    return mechanism_with("additive", SOURCE, prepare=(Project(w_q, w_k),), score=(Additive(v),), mask=mask)


CARDS = (
    Card(
        name="additive",
        family="scores",
        line="A one-layer network looks at query and key together; the first attention of translation.",
        equation="s = vᵀ tanh(W_q q + W_k k),  a = softmax(s)",
        source=SOURCE,
        time="O(n² m), m the hidden width",
        memory="O(n m); a strip holds m numbers per pair",
        attends="every key",
        factory=additive,
        example=lambda s: {
            "w_q": s.normal(s.key_width, 5, seed=1),
            "w_k": s.normal(s.key_width, 5, seed=2),
            "v": s.normal(5, seed=3),
        },
        parameters={"w_q": "[Dq,M]", "w_k": "[Dk,M]", "v": "[M]: what the hidden layer counts for"},
    ),
)
