"""How spread the weights of a row are: entropy, and the number of keys that it amounts to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from regard import core
from regard.mechanism import WeightKind
from regard.seeing.statistics.kinds import MASSES
from regard.statistic import Block, RowStatistic, State, View


@dataclass(frozen=True)
class Entropy(RowStatistic):
    """H_i = -Σ_j a_ij ln a_ij: how spread a row is, in nats; 0 for one key, ln n for n equal ones."""

    name: ClassVar[str] = "entropy"
    formula: ClassVar[str] = "H_i = -Σ_j a_ij ln a_ij"
    title: ClassVar[str] = "entropy"
    unit: ClassVar[str] = "nats"
    order: ClassVar[int] = 10
    defined_for: ClassVar[frozenset[WeightKind]] = MASSES

    def undefined(self, view: View) -> str | None:
        if self.of == "norm":
            return f"{self.name} is defined for weights, not for norm-weighted ones; use of='weights'"
        return super().undefined(view)

    def of_rows(self, block: Block, view: View) -> Tensor:
        return torch.special.entr(block.weights).sum(-1)

    def core(self, view: View, rows: slice) -> tuple[core.CoreStatistic, ...]:
        return (core.RowEntropy(),)


@dataclass(frozen=True)
class EffectiveSpan(Entropy):
    """e^{H_i}: the number of equally weighted keys that would be as spread as this row."""

    name: ClassVar[str] = "span"
    formula: ClassVar[str] = "e^{H_i}, H_i = -Σ_j a_ij ln a_ij"
    title: ClassVar[str] = "effective span"
    unit: ClassVar[str] = "tokens"
    order: ClassVar[int] = 20

    def finish(self, state: State, view: View) -> dict[str, Tensor]:
        return {"rows": super().finish(state, view)["rows"].exp()}
