"""What a key receives from all rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from regard import core
from regard.statistic import Block, KeyStatistic, View


@dataclass(frozen=True)
class Received(KeyStatistic):
    """m_j = Σ_i a_ij: the attention a key receives (H2O: Zhang 2023, section 4).

    The head's number is the largest share of all mass that one key receives.
    """

    name: ClassVar[str] = "received"
    formula: ClassVar[str] = "m_j = Σ_i a_ij"
    title: ClassVar[str] = "attention received"
    head_title: ClassVar[str] = "largest share received"
    head_unit: ClassVar[str] = "share of mass"
    order: ClassVar[int] = 130

    def of_keys(self, block: Block, view: View) -> Tensor:
        return block.weights.sum(-2, dtype=torch.float64)

    def summary(self, results: dict[str, Tensor], view: View) -> Tensor:
        keys = results["keys"]
        return keys.amax(-1) / keys.sum(-1).clamp(min=1e-30)

    def core(self, view: View, rows: slice) -> tuple[core.CoreStatistic, ...]:
        return (core.ColumnMass(),)
