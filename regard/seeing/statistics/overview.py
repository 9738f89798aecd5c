"""A map of all weights at a bounded resolution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from regard import core
from regard.errors import UserError
from regard.growing import Growing
from regard.seeing.cells import allowed_per_cell, pooled, shift_for
from regard.statistic import Block, Statistic, View, Walked


@dataclass(frozen=True, eq=False)
class Map:
    """Cells of 2^shifts tokens: sum float64 and max float32 [B,H,rows,keys], allowed pairs float64 [B,H or 1,…]."""

    sum: Growing
    max: Growing
    count: Growing
    shifts: tuple[int, int]

    @staticmethod
    def of(total: Tensor, largest: Tensor, count: Tensor, shifts: tuple[int, int], slots: tuple[int, int]) -> Map:
        """The map whose first cell holds the pair of these slots."""
        at = (slots[0] >> shifts[0], slots[1] >> shifts[1])
        return Map(Growing(total, at), Growing(largest, at), Growing(count, at), shifts)

    def at_least(self, shifts: tuple[int, int]) -> Map:
        """The same with cells merged two by two until each side of a cell is at least 2^shifts tokens."""
        map_ = self
        for side in (0, 1):
            while map_.shifts[side] < shifts[side]:
                map_ = map_._coarser(side)
        return map_

    def _coarser(self, side: int) -> Map:
        step = (1, 0) if side == 0 else (0, 1)
        row, key = self.sum.begin
        at = (row >> step[0], key >> step[1])

        def merged(cells: Growing, how: Literal["sum", "amax"]) -> Growing:
            return Growing(pooled(cells.live(), (row, key), step, how), at)

        shifts = (self.shifts[0] + step[0], self.shifts[1] + step[1])
        return Map(merged(self.sum, "sum"), merged(self.max, "amax"), merged(self.count, "sum"), shifts)

    def with_count_per_head(self, heads: int) -> Map:
        """The same with allowed pairs counted for so many heads."""
        count = self.count.live()
        if count.shape[1] == heads:
            return self
        return Map(self.sum, self.max, Growing(count.expand(-1, heads, -1, -1), self.count.begin), self.shifts)


@dataclass(frozen=True)
class Overview(Statistic):
    """A map of all weights at a bounded resolution: the mean over allowed pairs, and the maximum, of each cell.

    A cell is 2^z × 2^z' tokens, anchored at the first slot, each side the smallest power of two that keeps the axis
    within `resolution` cells; as a sequence grows, cells are merged two by two. Up to `resolution` tokens a cell is
    one pair, and the map is the exact matrix.
    """

    resolution: int = 128
    name: ClassVar[str] = "overview"
    formula: ClassVar[str] = "mean and max of a_ij over cells of 2^z × 2^z' tokens"
    title: ClassVar[str] = "largest weight"
    order: ClassVar[int] = 140
    shape: ClassVar[Literal["map"]] = "map"

    def __post_init__(self) -> None:
        if self.resolution < 1:
            raise UserError(f"an overview has at least 1 cell a side, got {self.resolution}")

    def _shifts(self, view: View) -> tuple[int, int]:
        return shift_for(view.query.length, self.resolution), shift_for(view.key.length, self.resolution)

    def of_block(self, block: Block, view: View) -> Map:
        shifts, slots = self._shifts(view), (block.rows.start, block.keys.start)
        allowed = torch.ones((1, 1, 1, 1), dtype=torch.bool) if block.allowed is None else block.allowed
        allowed = allowed.to(block.weights.device) & block.query.valid[:, None, :, None]
        allowed = allowed.expand(-1, -1, *block.weights.shape[2:])
        return Map.of(
            pooled(block.weights.to(torch.float64), slots, shifts, "sum"),
            pooled(block.weights.float(), slots, shifts, "amax"),
            pooled(allowed.to(torch.float64), slots, shifts, "sum"),
            shifts,
            slots,
        )

    def core(self, view: View, rows: slice) -> tuple[core.CoreStatistic, ...]:
        return (core.Pool(*self._shifts(view), rows.start),)

    def of_results(self, results: tuple[Any, ...], call: Walked) -> Map:
        total, largest = results[0]
        shifts, first = self._shifts(call.view), call.rows.start
        count = allowed_per_cell(call.ranges, call.counted, shifts, first, total.shape[0])
        return Map.of(total, largest, count, shifts, (first, 0))

    def merge(self, a: Map, b: Map) -> Map:
        a, b = a.at_least(b.shifts), b.at_least(a.shifts)
        heads = max(a.count.live().shape[1], b.count.live().shape[1])
        a, b = a.with_count_per_head(heads), b.with_count_per_head(heads)
        a.sum.join(b.sum, "add")
        a.max.join(b.max, "max")
        a.count.join(b.count, "add")
        return a

    def finish(self, state: Map, view: View) -> dict[str, Tensor]:
        state = state.at_least(self._shifts(view))
        sizes = [-(-axis.length >> shift) for axis, shift in zip((view.query, view.key), state.shifts, strict=True)]
        total, largest, count = (cells.whole(*sizes) for cells in (state.sum, state.max, state.count))
        mean = (total / count.clamp(min=1)).float()
        return {"mean": mean, "max": largest, "count": count, "shifts": torch.tensor(state.shifts)}

    def summary(self, results: dict[str, Tensor], view: View) -> Tensor:
        return results["max"].amax((-1, -2)).to(torch.float64)
