"""How much context a head uses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from regard.errors import UserError
from regard.seeing.statistics.distances import DistanceHistogram
from regard.statistic import View


@dataclass(frozen=True)
class EffectiveContext(DistanceHistogram):
    """The distance within which `share` of a head's mass lies: how short a window would lose little.

    From the exact mass of each bin of distance; within the bin that crosses the share, mass counts as spread evenly, so
    the number is exact to the bin, whose width is at most the number itself.
    """

    share: float = 0.9
    name: ClassVar[str] = "context"
    formula: ClassVar[str] = "min d: Σ_i Σ_j a_ij [|p_i - p_j| ≤ d] ≥ share · Σ_i Σ_j a_ij"
    title: ClassVar[str] = "mass by distance"
    head_title: ClassVar[str] = "effective context"
    head_unit: ClassVar[str] = "tokens"
    order: ClassVar[int] = 95
    standard: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise UserError(f"an effective context holds a share above 0 and below 1 of all mass, got {self.share}")

    def summary(self, results: dict[str, Tensor], view: View) -> Tensor:
        mass = results["bins"]
        until = mass.cumsum(-1)
        crossing = (until < self.share).sum(-1, keepdim=True).clamp(max=self.bins - 1)
        before = (until - mass).gather(-1, crossing)
        part = ((self.share - before) / mass.gather(-1, crossing).clamp(min=1e-30)).clamp(0, 1)
        high = torch.pow(2.0, crossing.double()) - 1  # bin b ends at distance 2^b - 1
        low = torch.where(crossing > 0, torch.pow(2.0, crossing.double() - 1) - 1, 0.0)
        return torch.where(until[..., -1:] > 0, low + part * (high - low), 0.0)[..., 0]
