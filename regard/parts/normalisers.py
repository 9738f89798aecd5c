"""Normalisers: a whole row of scores -> a row of weights. Excluded cells get 0; an empty row is all zeros."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from regard import core
from regard.errors import UserError
from regard.inputs import Inputs, Where, require_shape
from regard.mechanism import WeightKind
from regard.parts.noise import uniform


@dataclass(frozen=True, eq=False)
class Softmax:
    """a_ij = e^{s_ij} / (e^{σ_h} + Σ_j e^{s_ij}); without a sink the e^{σ_h} term is absent (Vaswani 2017, eq. 1).

    sink σ: a learned logit per head [heads] that takes part of the mass (gpt-oss), a number for all heads (0.0 is
    "softmax off by one", Miller 2023), or None.
    """

    depends_on_shapes_alone: ClassVar[bool] = True
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

    def check(self, x: Inputs) -> None:
        if isinstance(self.sink, Tensor):
            require_shape(self.sink, "Softmax's sink", ((1, x.q.shape[1]),), x)

    def __str__(self) -> str:
        if isinstance(self.sink, Tensor):
            raise UserError("a softmax with a learned sink holds a tensor and has no text form; build it in Python")
        return "softmax" if self.sink is None else "off_by_one" if self.sink == 0 else f"softmax({self.sink})"


@dataclass(frozen=True, eq=False)
class Sigmoid:
    """a_ij = σ(s_ij + b): each key is judged alone (Ramapuram 2024, eq. 2). bias b: logits; -log n by the paper."""

    bias: float = 0.0
    kind: ClassVar[WeightKind] = "nonnegative"

    def __call__(self, scores: Tensor, allowed: Tensor | None, where: Where) -> Tensor:
        weights = (scores + self.bias).sigmoid()
        return weights if allowed is None else weights.masked_fill(~allowed, 0.0)

    def __str__(self) -> str:
        return f"sigmoid({self.bias})" if self.bias else "sigmoid"


@dataclass(frozen=True)
class Relu:
    """a_ij = max(s_ij, 0) / n_i, n_i the number of keys that i may see (Wortsman 2023, section 3, α = 1)."""

    kind: ClassVar[WeightKind] = "nonnegative"

    def __call__(self, scores: Tensor, allowed: Tensor | None, where: Where) -> Tensor:
        if allowed is None:
            return scores.relu() / max(scores.shape[-1], 1)
        return scores.relu().masked_fill(~allowed, 0.0) / allowed.sum(-1, keepdim=True).clamp(min=1)

    def __str__(self) -> str:
        return "relu"


@dataclass(frozen=True)
class Ratio:
    """a_ij = s_ij / Σ_j s_ij: scores that are kernels, φ(q)·φ(k) >= 0 (Katharopoulos 2020, eq. 4)."""

    kind: ClassVar[WeightKind] = "distribution"

    def __call__(self, scores: Tensor, allowed: Tensor | None, where: Where) -> Tensor:
        kept = scores if allowed is None else scores.masked_fill(~allowed, 0.0)
        total = kept.sum(-1, keepdim=True)
        return kept / total.masked_fill(total == 0, 1.0)

    def __str__(self) -> str:
        return "ratio"


# ---- the best keys -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TopK:
    """Softmax over the k largest scores of a row; ties go to the lowest key position (Zhao 2019, eq. 5)."""

    k: int
    kind: ClassVar[WeightKind] = "distribution"

    def __post_init__(self) -> None:
        if self.k < 1:
            raise UserError(f"topk({self.k}): at least 1 key is kept")

    def __call__(self, scores: Tensor, allowed: Tensor | None, where: Where) -> Tensor:
        return Softmax()(scores, largest(scores, allowed, where, self.k), where)

    def __str__(self) -> str:
        return f"topk({self.k})"


def largest(scores: Tensor, allowed: Tensor | None, where: Where, k: int) -> Tensor:
    """bool: the k largest allowed scores of each row, ties to the lowest key position."""
    if scores.shape[-1] == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    seen = scores.detach() if allowed is None else scores.detach().masked_fill(~allowed, -float("inf"))
    least = seen.topk(min(k, seen.shape[-1]), -1).values[..., -1:]
    above, equal = seen > least, seen == least
    kept = above | (equal & (_rank(equal, where.key) <= k - above.sum(-1, keepdim=True)))
    return kept if allowed is None else kept & allowed


def _rank(equal: Tensor, key: Tensor) -> Tensor:
    """The how-manieth of the equal cells of its row each is, by key position, counted from 1."""
    if bool((key[..., 1:] >= key[..., :-1]).all()):
        return equal.cumsum(-1, dtype=torch.int32)
    order = key.argsort(dim=-1, stable=True).expand_as(equal)
    in_order = equal.gather(-1, order).cumsum(-1, dtype=torch.int32)
    return torch.zeros_like(in_order).scatter(-1, order, in_order)


@dataclass(frozen=True)
class Hard:
    """a_ij = [j = argmax s_i], ties to the lowest key position. No gradient reaches the scores."""

    kind: ClassVar[WeightKind] = "distribution"

    def __call__(self, scores: Tensor, allowed: Tensor | None, where: Where) -> Tensor:
        return largest(scores, allowed, where, 1).to(scores.dtype)

    def __str__(self) -> str:
        return "hard"


@dataclass(frozen=True)
class Gumbel:
    """a = onehot(argmax(s + g)), backward as softmax((s + g) / T) (straight-through: Jang 2017, section 2.2).

    g = -log(-log u), u drawn from (seed, layer, batch, head, p_i, p_j): a sample from softmax(s), always the same for
    a seed. straight_through=False has no gradient (hard attention's forward: Xu 2015, eq. 8).
    """

    temperature: float = 1.0
    seed: int = 0
    straight_through: bool = True
    kind: ClassVar[WeightKind] = "distribution"
    reads_positions: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise UserError(f"gumbel({self.temperature}): a temperature is above 0; use hard for its limit at 0")

    def __call__(self, scores: Tensor, allowed: Tensor | None, where: Where) -> Tensor:
        noisy = scores - (-uniform(self.seed, where, torch.float64).log()).log().to(scores.dtype)
        one_hot = largest(noisy, allowed, where, 1).to(scores.dtype)
        if not self.straight_through:
            return one_hot
        soft = Softmax()(noisy / self.temperature, allowed, where)
        return one_hot + (soft - soft.detach())

    def __str__(self) -> str:
        return f"gumbel({self.temperature}, {self.seed})" if self.straight_through else f"sample({self.seed})"
