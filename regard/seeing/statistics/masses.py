"""What a row gives to some of its keys: all of them, the first ones, special tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from regard import core
from regard.errors import UserError
from regard.statistic import Axis, Block, Need, RowStatistic, View


@dataclass(frozen=True)
class RowMass(RowStatistic):
    """Σ_j a_ij: what a row gives to its keys; the rest of it went to a learned sink."""

    name: ClassVar[str] = "mass"
    formula: ClassVar[str] = "Σ_j a_ij"
    title: ClassVar[str] = "row mass"
    order: ClassVar[int] = 50

    def undefined(self, view: View) -> str | None:
        if view.kind == "distribution" and self.of == "weights":
            return "mass is 1 for every row of a softmax without a sink"
        return super().undefined(view)

    def of_rows(self, block: Block, view: View) -> Tensor:
        return block.weights.sum(-1)

    def core(self, view: View, rows: slice) -> tuple[core.CoreStatistic, ...]:
        return (sum_over_all(view.key),)


@dataclass(frozen=True)
class SinkMass(RowStatistic):
    """Σ_{p_j < count} a_ij: mass on the first tokens (attention sinks: Xiao 2024, section 3.1)."""

    count: int = 4
    name: ClassVar[str] = "sink"
    formula: ClassVar[str] = "Σ_{p_j < count} a_ij"
    title: ClassVar[str] = "mass on first tokens"
    order: ClassVar[int] = 60

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UserError(f"sink mass counts at least 1 first token, got {self.count}")

    def of_rows(self, block: Block, view: View) -> Tensor:
        first = (block.key.positions < self.count)[:, None, None]
        return (block.weights * first).sum(-1)

    def core(self, view: View, rows: slice) -> tuple[core.CoreStatistic, ...]:
        return (core.RowSum((view.key.positions < self.count).float()),)


@dataclass(frozen=True)
class SpecialMass(RowStatistic):
    """Σ_{j special} a_ij: mass on special tokens ([CLS], [SEP], <bos> …)."""

    name: ClassVar[str] = "special"
    formula: ClassVar[str] = "Σ_{j special} a_ij"
    title: ClassVar[str] = "mass on specials"
    order: ClassVar[int] = 70
    needs: ClassVar[frozenset[Need]] = frozenset({"special"})

    def of_rows(self, block: Block, view: View) -> Tensor:
        assert block.key.special is not None
        return (block.weights * block.key.special[:, None, None]).sum(-1)

    def core(self, view: View, rows: slice) -> tuple[core.CoreStatistic, ...]:
        assert view.key.special is not None
        return (core.RowSum(view.key.special.float()),)


def sum_over_all(key: Axis) -> core.RowSum:
    """Σ_j a_ij as a core record, the same one for all statistics of an axis."""
    return key.once("sum over all", lambda: core.RowSum(torch.ones_like(key.positions, dtype=torch.float32)))
