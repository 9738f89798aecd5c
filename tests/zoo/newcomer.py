"""Softplus attention: each key counts by the softplus of its score. An example of a mechanism in one file."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import softplus

from regard.inputs import Where
from regard.mechanism import Mechanism, WeightKind
from regard.parts.defaults import mechanism_with
from regard.zoo.card import Card


@dataclass(frozen=True)
class Softplus:
    kind: ClassVar[WeightKind] = "nonnegative"

    def __call__(self, scores: Tensor, allowed: Tensor | None, where: Where) -> Tensor:
        weights = softplus(scores)
        return weights if allowed is None else weights.masked_fill(~allowed, 0.0)


def softplus_attention() -> Mechanism:
    return mechanism_with("softplus", "an example", normaliser=Softplus())


ALL = "every key"
CARDS = (Card("softplus", "normalisers", "…", "a = log(1 + e^s)", "none", "O(n²d)", "O(nd)", ALL, softplus_attention),)
