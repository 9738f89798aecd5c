"""How far rows look: the mean distance of a row, and a head's mass by distance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from regard import core
from regard.seeing.statistics.kinds import SAME_AXIS
from regard.statistic import Block, Need, RowStatistic, Statistic, View, Walked


@dataclass(frozen=True)
class MeanDistance(RowStatistic):
    """Σ_j a_ij |p_i - p_j|: how far a row looks on average, in tokens (Vig 2019, section 4)."""

    name: ClassVar[str] = "distance"
    formula: ClassVar[str] = "Σ_j a_ij |p_i - p_j|"
    title: ClassVar[str] = "mean distance"
    unit: ClassVar[str] = "tokens"
    order: ClassVar[int] = 80
    needs: ClassVar[frozenset[Need]] = SAME_AXIS

    def of_rows(self, block: Block, view: View) -> Tensor:
        return (block.weights * block.distance()).sum(-1)

    def core(self, view: View, rows: slice) -> tuple[core.CoreStatistic, ...]:
        return (core.RowDistance(),)


@dataclass(frozen=True)
class DistanceHistogram(Statistic):
    """Share of a head's mass by distance: bin 0 is distance 0, bin b ≥ 1 is 2^(b-1) ≤ |p_i - p_j| < 2^b.

    The head's number is the mean bin. The state is the mass of each bin, float64 [B,H,bins].
    """

    bins: int = 18
    name: ClassVar[str] = "distances"
    formula: ClassVar[str] = "Σ_i Σ_j a_ij [bin(|p_i - p_j|) = b] / Σ_i Σ_j a_ij"
    title: ClassVar[str] = "mass by distance"
    unit: ClassVar[str] = "share of mass"
    head_title: ClassVar[str] = "mean distance bin"
    head_unit: ClassVar[str] = "log2 tokens"
    order: ClassVar[int] = 90
    shape: ClassVar[Literal["bins"]] = "bins"
    needs: ClassVar[frozenset[Need]] = SAME_AXIS

    def of_block(self, block: Block, view: View) -> Tensor:
        index = torch.frexp(block.distance().double()).exponent.long()  # d = m · 2^e, 1/2 <= m < 1: exact, unlike log2
        index = index.clamp(max=self.bins - 1).expand(block.weights.shape)
        mass = block.weights.new_zeros((*block.weights.shape[:2], self.bins), dtype=torch.float64)
        return mass.scatter_add_(-1, index.flatten(2), block.weights.flatten(2).to(torch.float64))

    def of_results(self, results: tuple[Any, ...], call: Walked) -> Tensor:
        mass: Tensor = results[0]
        return mass

    def merge(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b

    def finish(self, state: Tensor, view: View) -> dict[str, Tensor]:
        return {"bins": state / state.sum(-1, keepdim=True).clamp(min=1e-30)}

    def summary(self, results: dict[str, Tensor], view: View) -> Tensor:
        return (results["bins"] * torch.arange(self.bins, device=results["bins"].device)).sum(-1)

    def core(self, view: View, rows: slice) -> tuple[core.CoreStatistic, ...]:
        return (core.DistanceHistogram(self.bins),)
