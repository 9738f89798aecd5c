"""Cells of a map: 2^z × 2^z' tokens each, anchored at slot 0, and what falls into them."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from regard.core.ranges import Ranges
from regard.once import once

MOST_PAIRS = 4 << 20


def shift_for(length: int, resolution: int) -> int:
    """The smallest z with ceil(length / 2^z) <= resolution."""
    shift = 0
    while -(-length >> shift) > resolution:
        shift += 1
    return shift


def pooled(values: Tensor, at: tuple[int, int], shifts: tuple[int, int], how: Literal["sum", "amax"]) -> Tensor:
    """[B,H,rows,keys] from slot `at` reduced over anchored cells of 2^shifts, nonnegative values for amax."""
    for dim, begin, shift in ((3, at[1], shifts[1]), (2, at[0], shifts[0])):
        if shift == 0:
            continue
        length = values.shape[dim]
        lead = begin & ((1 << shift) - 1)
        tail = -(begin + length) & ((1 << shift) - 1)
        pad = (lead, tail) if dim == 3 else (0, 0, lead, tail)
        padded = torch.nn.functional.pad(values, pad)
        split = padded.unflatten(dim, (-1, 1 << shift)) if padded.shape[dim] else padded.unsqueeze(dim + 1)
        values = split.sum(dim + 1) if how == "sum" else split.amax(dim + 1)
    return values


def allowed_per_cell(
    ranges: Ranges, counted: Tensor | None, shifts: tuple[int, int], first_row: int, batch: int
) -> Tensor:
    """Allowed pairs of counted rows in each cell. float64 [B, heads or 1, row cells, key cells].

    ranges: of the rows from slot `first_row` on, over keys from slot 0. Computed once for layers that share them.
    """
    what = ("allowed per cell", shifts, first_row, batch, id(counted))
    return once(ranges, what, lambda: (counted, _allowed_per_cell(ranges, counted, shifts, first_row, batch)))[1]


def _allowed_per_cell(
    ranges: Ranges, counted: Tensor | None, shifts: tuple[int, int], first_row: int, batch: int
) -> Tensor:
    side = 1 << shifts[1]
    num_cells = -(-ranges.num_keys >> shifts[1])
    begin = torch.arange(num_cells, device=ranges.start.device, dtype=torch.int32) * side
    num_rows = ranges.num_queries
    lead = first_row & ((1 << shifts[0]) - 1)
    total = ranges.start.new_zeros(
        (batch, ranges.start.shape[1], -(-(lead + num_rows) >> shifts[0]), num_cells)
    ).double()
    cell_of_row = (torch.arange(num_rows, device=begin.device) + lead) >> shifts[0]
    step = max(1, MOST_PAIRS // max(1, num_cells))
    for i in range(0, num_rows, step):
        pairs = _overlap(ranges.rows(i, min(i + step, num_rows)), begin, side).double().expand(batch, -1, -1, -1)
        if counted is not None:
            pairs = pairs * counted[:, None, i : i + step, None]
        total.index_add_(2, cell_of_row[i : i + step], pairs)
    return total


def _overlap(ranges: Ranges, begin: Tensor, side: int) -> Tensor:
    """int32 [.., rows, cells]: how many visible keys of each row lie in the cells [begin, begin + side)."""
    inside = torch.zeros_like(ranges.start[..., :1]) * begin
    for r in range(ranges.start.shape[3]):
        start, stop = ranges.start[..., r, None], ranges.stop[..., r, None]
        inside += (torch.minimum(stop, begin + side) - torch.maximum(start, begin)).clamp(min=0)
    return inside
