"""Sparse softmaxes: sparsemax, entmax, and heads that learn how sparse to be."""

from __future__ import annotations

import torch
from torch import Tensor

from regard.mechanism import Mask, Mechanism
from regard.parts.defaults import FULL, mechanism_with
from regard.parts.sparse import Entmax, Normmax
from regard.zoo.card import Card

SPARSEMAX = "Martins & Astudillo 2016, From Softmax to Sparsemax, eq. 2-3"
ENTMAX = "Peters et al. 2019, Sparse Sequence-to-Sequence Models, eq. 10"
NORMMAX = "Blondel et al. 2020, Learning with Fenchel-Young Losses, section 4.3 (norm entropies)"
ADAPTIVE = "Correia et al. 2019, Adaptively Sparse Transformers, eq. 5-8"


def sparsemax(*, mask: Mask = FULL) -> Mechanism:
    """a = [s - τ]₊ with Σ a = 1: the nearest distribution to the scores, with exact zeros."""
    return mechanism_with("sparsemax", SPARSEMAX, normaliser=Entmax(2.0), mask=mask)


def entmax(*, alpha: float = 1.5, mask: Mask = FULL) -> Mechanism:
    """a = [(α - 1) s - τ]₊^{1/(α - 1)} with Σ a = 1: between softmax (α → 1) and sparsemax (α = 2)."""
    return mechanism_with("entmax", ENTMAX, normaliser=Entmax(alpha), mask=mask)


def normmax(*, alpha: float = 2.0, mask: Mask = FULL) -> Mechanism:
    """a = b / Σ b, b = [s - τ]₊^{1/(α - 1)} with ‖b‖_α = 1: flatter inside its support than entmax."""
    return mechanism_with("normmax", NORMMAX, normaliser=Normmax(alpha), mask=mask)


def adaptively_sparse(*, alpha: Tensor, mask: Mask = FULL) -> Mechanism:
    """Entmax with a learned α per head. alpha: [heads], above 1 (the paper: 1 + sigmoid of a parameter)."""
    return mechanism_with("adaptively_sparse", ADAPTIVE, normaliser=Entmax(alpha), mask=mask)


CARDS = (
    Card(
        name="sparsemax",
        family="normalisers",
        line="The scores projected onto the simplex: weak keys get exactly zero.",
        equation="a = argmin_p ‖p - s‖² = [s - τ]₊,  Σ a = 1",
        source=SPARSEMAX,
        time="O(n² d + a few sweeps over each row)",
        memory="O(n d)",
        attends="the few keys above a threshold",
        factory=sparsemax,
    ),
    Card(
        name="entmax",
        family="normalisers",
        line="Between softmax and sparsemax: smooth, and still exactly zero for weak keys.",
        equation="a = [(α - 1) s - τ]₊^{1/(α - 1)},  Σ a = 1",
        source=ENTMAX,
        time="O(n² d + a few sweeps over each row)",
        memory="O(n d)",
        attends="the keys above a threshold",
        factory=entmax,
    ),
    Card(
        name="normmax",
        family="normalisers",
        line="Exact zeros as entmax, and nearly equal weights for the keys that are kept.",
        equation="a = argmax_p p·s - ‖p‖_α = b / Σ b,  b = [s - τ]₊^{1/(α - 1)},  ‖b‖_α = 1",
        source=NORMMAX,
        time="O(n² d + a few sweeps over each row)",
        memory="O(n d)",
        attends="the keys above a threshold",
        factory=normmax,
    ),
    Card(
        name="adaptively_sparse",
        family="adaptive",
        line="Each head learns how sparse to be: α near 1 looks at all, near 2 at few.",
        equation="a = α_h-entmax(s)",
        source=ADAPTIVE,
        time="O(n² d + a few sweeps over each row)",
        memory="O(n d)",
        attends="the keys above a threshold that each head learns",
        factory=adaptively_sparse,
        example=lambda s: {"alpha": torch.linspace(1.2, 1.9, s.heads, dtype=s.dtype)},
        parameters={"alpha": "[H]: 1 + sigmoid of a learned number"},
    ),
)
