"""Linformer: keys and values projected along the sequence."""

from __future__ import annotations

from torch import Tensor

from regard.mechanism import Mechanism
from regard.parts.defaults import mechanism_with
from regard.parts.prepare import ProjectSequence
from regard.zoo.card import Card

SOURCE = "Wang et al. 2020, Linformer: Self-Attention with Linear Complexity, eq. 7"


def linformer(*, e: Tensor, f: Tensor | None = None) -> Mechanism:
    """o = softmax(q (E K)ᵀ / √Dk) (F V). e, f: [m,n]; f None shares e. Slots have no order: no causal mask."""
    projection = ProjectSequence(e, e if f is None else f)
    return mechanism_with("linformer", SOURCE, prepare=(projection,))


CARDS = (
    Card(
        name="linformer",
        family="low rank and kernels",
        line="The n keys are mixed into m slots by a learned matrix, and queries attend to the slots.",
        equation="a = softmax(q (E K)ᵀ / √Dk),  o = a (F V)",
        source=SOURCE,
        time="O(n m d)",
        memory="O(n d + m n)",
        stored="O(n m)",
        attends="m slots, each a mixture of all tokens; not causal, one length",
        factory=linformer,
        example=lambda s: {"e": s.normal(3, s.keys, seed=1), "f": s.normal(3, s.keys, seed=2)},
        parameters={"e": "[m,n]: mixes keys", "f": "[m,n]: mixes values"},
    ),
)
