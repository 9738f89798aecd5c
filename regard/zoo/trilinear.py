"""Trilinear attention: query, key and their product, each with weights of its own."""

from __future__ import annotations

from torch import Tensor

from regard.mechanism import Mask, Mechanism
from regard.parts.defaults import FULL, mechanism_with
from regard.parts.scores import Dot
from regard.parts.trilinear import AddSides, TrilinearSides
from regard.zoo.card import Card

SOURCE = "Seo et al. 2017, Bidirectional Attention Flow for Machine Comprehension, eq. 1"


def trilinear(*, w_q: Tensor, w_k: Tensor, w_m: Tensor, mask: Mask = FULL) -> Mechanism:
    """s_ij = w_q·q_i + w_k·k_j + w_m·(q_i ⊙ k_j) = wᵀ[q ; k ; q ⊙ k]. w_q, w_k, w_m: [D]."""
    prepare = (TrilinearSides(w_q, w_k, w_m),)
    return mechanism_with("trilinear", SOURCE, prepare=prepare, score=(Dot(1.0), AddSides()), mask=mask)


CARDS = (
    Card(
        name="trilinear",
        family="scores",
        line="A linear function of query, key and their product scores each pair.",
        equation="s_ij = wᵀ [q_i ; k_j ; q_i ⊙ k_j]",
        source=SOURCE,
        time="O(n² d)",
        memory="O(n d)",
        attends="every key",
        factory=trilinear,
        example=lambda s: {
            f"w_{name}": s.normal(s.key_width, seed=seed) for name, seed in (("q", 1), ("k", 2), ("m", 3))
        },
        parameters={"w_q": "[D]: of the query", "w_k": "[D]: of the key", "w_m": "[D]: of their product"},
    ),
)
