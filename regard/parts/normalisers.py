"""Normalisers: a whole row of scores -> a row of weights. Excluded cells get 0; an empty row is all zeros."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from regard import core
from regard.mechanism import Inputs, WeightKind, Where


@dataclass(frozen=True, eq=False)
class Softmax:
    """a_ij = e^{s_ij} / (e^{σ_h} + Σ_j e^{s_ij}); without a sink the e^{σ_h} term is absent (Vaswani 2017, eq. 1).

    sink σ: a learned logit per head [heads] that takes part of the mass (gpt-oss), a number for all heads (0.0 is
    "softmax off by one", Miller 2023), or None.
    """

    sink: Tensor | float | None = None

    @property
    def kind(self) -> WeightKind:
        return "distribution" if self.sink is None else "subunit"

    def __call__(self, scores: Tensor, allowed: Tensor | None, where: Where) -> Tensor:
        if scores.shape[-1] == 0:
            return scores
        if allowed is not None:
            scores = scores.masked_fill(~allowed, -float("inf"))
        sink = self.per_head(scores)
        top = scores.detach().amax(-1, keepdim=True)
        shift = top if sink is None else top.maximum(sink.detach()[:, :, None, None])
        shift = shift.masked_fill(shift == -float("inf"), 0.0)
        exps = (scores - shift).exp()
        total = exps.sum(-1, keepdim=True)
        if sink is not None:
            total = total + (sink[:, :, None, None] - shift).exp()
        return exps / total.masked_fill(total == 0, 1.0)

    def per_head(self, like: Tensor) -> Tensor | None:
        """The sink's logit as [1, heads] in the scores' type."""
        if self.sink is None:
            return None
        if isinstance(self.sink, Tensor):
            return self.sink.to(like.dtype)[None]
        return like.new_full((1, like.shape[1]), self.sink)

    def core(self, x: Inputs) -> core.Softmax:
        if self.sink is None or isinstance(self.sink, Tensor):
            return core.Softmax(self.sink)
        return core.Softmax(x.q.new_full((x.q.shape[1],), self.sink))


@dataclass(frozen=True, eq=False)
class Sigmoid:
    """a_ij = σ(s_ij + b): each key is judged alone (Ramapuram 2024, eq. 2). bias b: logits; -log n by the paper."""

    bias: float = 0.0
    kind: ClassVar[WeightKind] = "nonnegative"

    def __call__(self, scores: Tensor, allowed: Tensor | None, where: Where) -> Tensor:
        weights = (scores + self.bias).sigmoid()
        return weights if allowed is None else weights.masked_fill(~allowed, 0.0)
