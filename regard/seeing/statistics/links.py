"""The strongest links of a row: the largest weight, and the k largest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from regard import core
from regard.errors import UserError
from regard.growing import Growing, Join
from regard.mechanism import WeightKind
from regard.seeing.statistics.kinds import UNSIGNED
from regard.seeing.statistics.masses import sum_over_all
from regard.statistic import Block, RowStatistic, Statistic, View, Walked, mean_over_rows


@dataclass(frozen=True)
class Maximum(RowStatistic):
    """max_j a_ij: the weight of the strongest link of a row."""

    name: ClassVar[str] = "max"
    formula: ClassVar[str] = "max_j a_ij"
    title: ClassVar[str] = "strongest link"
    order: ClassVar[int] = 30
    join: ClassVar[Join] = "max"
    defined_for: ClassVar[frozenset[WeightKind]] = UNSIGNED

    def of_rows(self, block: Block, view: View) -> Tensor:
        return block.weights.amax(-1) if block.weights.shape[-1] else block.weights.sum(-1)

    def core(self, view: View, rows: slice) -> tuple[core.CoreStatistic, ...]:
        return (core.RowMax(),)


@dataclass(frozen=True, eq=False)
class Links:
    """Some rows' strongest links: weights float32 and keys int32 [B,H,rows,k or fewer], the rows' mass [B,H,rows]."""

    weights: Growing
    keys: Growing
    mass: Growing

    @staticmethod
    def of(weights: Tensor, keys: Tensor, mass: Tensor, first_row: int) -> Links:
        at = (first_row, 0)
        return Links(Growing(weights, at), Growing(keys, at, fill=-1), Growing(mass, (first_row,)))


@dataclass(frozen=True)
class TopK(Statistic):
    """The k strongest links of each row, strongest first, ties to the lowest key, and the mass of the rest.

    Rows hold min(k, keys) links; unused ones have weight 0 and key -1.
    """

    k: int = 8
    name: ClassVar[str] = "top"
    formula: ClassVar[str] = "the k largest a_ij of row i, and Σ_j a_ij minus them"
    title: ClassVar[str] = "mass of the top links"
    order: ClassVar[int] = 40
    shape: ClassVar[Literal["top"]] = "top"
    defined_for: ClassVar[frozenset[WeightKind]] = UNSIGNED

    def __post_init__(self) -> None:
        if self.k < 1:
            raise UserError(f"top-k keeps at least 1 link, got k={self.k}")

    def of_block(self, block: Block, view: View) -> Links:
        best = block.weights.float().sort(dim=-1, descending=True, stable=True)
        weights, keys = best.values[..., : self.k], best.indices[..., : self.k].to(torch.int32) + block.keys.start
        mass = block.weights.sum(-1, dtype=torch.float32)
        return Links.of(weights.clone(), keys.where(weights > 0, -1), mass, block.rows.start)

    def of_results(self, results: tuple[Any, ...], call: Walked) -> Links:
        (weights, keys), mass = results
        return Links.of(weights, keys, mass, call.rows.start)

    def merge(self, a: Links, b: Links) -> Links:
        if b.mass.begin >= a.mass.end or b.mass.end <= a.mass.begin:  # the rows of one after those of the other
            a.weights.join(b.weights, "set")
            a.keys.join(b.keys, "set")
        else:
            self._merge_rows(a, b)
        a.mass.join(b.mass, "add")
        return a

    def _merge_rows(self, a: Links, b: Links) -> None:
        """Links of the same rows to other keys."""
        kept = min(self.k, a.keys.end[1] + b.keys.end[1])
        begin, end = b.keys.begin, (b.keys.end[0], kept)
        weights, keys = a.weights.region(begin, end), a.keys.region(begin, end)
        best = _best_of((weights, keys), (b.weights.live(), b.keys.live()), kept)
        weights.copy_(best[0])
        keys.copy_(best[1])

    def finish(self, state: Links, view: View) -> dict[str, Tensor]:
        rows, kept = view.query.length, min(self.k, view.key.length)
        weights = state.weights.whole(rows, kept)
        rest = (state.mass.whole(rows) - weights.sum(-1)).clamp(min=0)
        return {"weights": weights, "keys": state.keys.whole(rows, kept), "rest": rest}

    def summary(self, results: dict[str, Tensor], view: View) -> Tensor:
        return mean_over_rows(results["weights"].sum(-1), view.query.valid)

    def core(self, view: View, rows: slice) -> tuple[core.CoreStatistic, ...]:
        return (core.TopK(min(self.k, view.key.length)), sum_over_all(view.key))


def _best_of(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor], k: int) -> tuple[Tensor, Tensor]:
    """The k best of two lists of links, by weight, then by lowest key; unused links have key -1 and weight 0."""
    weights, keys = torch.cat([a[0], b[0]], -1), torch.cat([a[1], b[1]], -1)
    last = torch.iinfo(keys.dtype).max
    by_key = keys.where(keys >= 0, last).argsort(dim=-1, stable=True)
    weights, keys = weights.gather(-1, by_key), keys.gather(-1, by_key)
    best = weights.sort(dim=-1, descending=True, stable=True)
    return best.values[..., :k], keys.gather(-1, best.indices)[..., :k]
