"""Mass of a row on its own token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from regard import core
from regard.seeing.statistics.kinds import SAME_AXIS
from regard.seeing.statistics.matches import at_distance, shifted
from regard.statistic import Block, Need, RowStatistic, View


@dataclass(frozen=True)
class OwnToken(RowStatistic):
    """a_ii: how much a token attends to itself (the diagonal: Kovaleva 2019, section 4.1)."""

    name: ClassVar[str] = "own"
    formula: ClassVar[str] = "Σ_j a_ij [p_j = p_i]"
    title: ClassVar[str] = "own token"
    order: ClassVar[int] = 98
    standard: ClassVar[bool] = False
    needs: ClassVar[frozenset[Need]] = SAME_AXIS

    def of_rows(self, block: Block, view: View) -> Tensor:
        return (block.weights * shifted(block, 0)).sum(-1)

    def core(self, view: View, rows: slice) -> tuple[core.CoreStatistic, ...]:
        return (at_distance(view, rows, 0),)
