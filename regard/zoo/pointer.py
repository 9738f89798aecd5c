"""Pointer networks: the weights are the answer."""

from __future__ import annotations

from torch import Tensor

from regard.mechanism import Mask, Mechanism
from regard.parts.defaults import FULL, mechanism_with
from regard.parts.prepare import Project
from regard.parts.scores import Additive
from regard.zoo.card import Card

SOURCE = "Vinyals et al. 2015, Pointer Networks, eq. 3"


def pointer(*, w_q: Tensor, w_k: Tensor, v: Tensor, mask: Mask = FULL) -> Mechanism:
    """p(j | i) = softmax(vᵀ tanh(W_q q_i + W_k k_j)): a choice among the inputs; ask for `regard.weights`."""
    return mechanism_with("pointer", SOURCE, prepare=(Project(w_q, w_k),), score=(Additive(v),), mask=mask, mix=None)


CARDS = (
    Card(
        name="pointer",
        family="kinds",
        line="The weights themselves are the output: each step points at one of the inputs.",
        equation="p(j | i) = softmax_j(vᵀ tanh(W_q q_i + W_k k_j))",
        source=SOURCE,
        time="O(n² m)",
        memory="O(n m)",
        attends="every input",
        factory=pointer,
        example=lambda s: {
            "w_q": s.normal(s.key_width, 5, seed=1),
            "w_k": s.normal(s.key_width, 5, seed=2),
            "v": s.normal(5, seed=3),
        },
        parameters={"w_q": "[Dq,M]", "w_k": "[Dk,M]", "v": "[M]"},
    ),
)
