"""Nyström attention: the softmax matrix rebuilt from landmarks."""

from __future__ import annotations

from regard.composite import LowRank
from regard.parts.defaults import mechanism_with
from regard.zoo.card import Card

SOURCE = "Xiong et al. 2021, Nyströmformer, eq. 13-14"


def nystrom(*, landmarks: int, iterations: int | None = 6) -> LowRank:
    """o = softmax(q K̃ᵀ) softmax(Q̃ K̃ᵀ)⁺ softmax(Q̃ Kᵀ) v. iterations of the inverse; None: exact."""
    return LowRank("nystrom", SOURCE, mechanism_with("softmax", SOURCE), landmarks, iterations)


CARDS = (
    Card(
        name="nystrom",
        family="low rank and kernels",
        line="Queries reach keys through m landmarks, the means of segments.",
        equation="o = softmax(q K̃ᵀ/√Dk) · softmax(Q̃ K̃ᵀ/√Dk)⁺ · softmax(Q̃ Kᵀ/√Dk) v",
        source=SOURCE,
        time="O(n m d + m³)",
        memory="O(n d + m²)",
        attends="every token, through landmarks; signed weights; not causal",
        factory=nystrom,
        example=lambda s: {"landmarks": min(3, s.queries, s.keys)},
    ),
)
