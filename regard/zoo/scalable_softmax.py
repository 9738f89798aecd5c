"""Scalable softmax: scores grow with the number of keys, so that a long input does not flatten the weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from regard.inputs import Inputs, Where, require_shape
from regard.mechanism import Mask, Mechanism, WeightKind
from regard.parts.defaults import FULL, mechanism_with
from regard.parts.normalisers import Softmax
from regard.zoo.card import Card

SOURCE = "Nakanishi 2025, Scalable-Softmax Is Superior for Attention, eq. 2"


@dataclass(frozen=True, eq=False)
class ScalableSoftmax:
    """a_ij = n_i^{f s_ij} / Σ_j n_i^{f s_ij}, n_i the number of keys that i may see (Nakanishi 2025, eq. 2).

    factor f: a number, or learned, one per head [heads].
    """

    factor: Tensor | float = 0.43
    kind: ClassVar[WeightKind] = "distribution"

    def __call__(self, scores: Tensor, allowed: Tensor | None, where: Where) -> Tensor:
        seen = torch.ones_like(scores[:1, :1, :1], dtype=torch.bool) if allowed is None else allowed
        count = seen.sum(-1, keepdim=True).clamp(min=1).to(scores.dtype)
        factor = self.factor
        if isinstance(factor, Tensor):
            factor = factor.to(scores.dtype)[:, None, None]
        return Softmax()(scores * (factor * count.log()), allowed, where)

    def check(self, x: Inputs) -> None:
        if isinstance(self.factor, Tensor):
            require_shape(self.factor, "ScalableSoftmax's factor", ((x.q.shape[1],),), x)


def scalable_softmax(*, factor: Tensor | float = 0.43, mask: Mask = FULL) -> Mechanism:
    """Softmax to the base n instead of e, n the number of keys. factor f: a number, or [heads]."""
    return mechanism_with("scalable_softmax", SOURCE, normaliser=ScalableSoftmax(factor), mask=mask)


CARDS = (
    Card(
        name="scalable_softmax",
        family="normalisers",
        line="Scores times the logarithm of the number of keys: weights stay as sharp in long inputs.",
        equation="a_ij = n_i^{f s_ij} / Σ_j n_i^{f s_ij}",
        source=SOURCE,
        time="O(n² d)",
        memory="O(n d)",
        attends="every key",
        factory=scalable_softmax,
        example=lambda s: {"factor": 0.3 + torch.arange(s.heads, dtype=s.dtype) / 10},
        parameters={"factor": "[H]: how fast each head sharpens with the number of keys"},
        when="Attention should stay sharp in inputs longer than those of training.",
        models="shown in pre-trained decoders by Nakanishi; a scale of log n in other long-context models",
        also=("SSMax", "length scaling"),
    ),
)
