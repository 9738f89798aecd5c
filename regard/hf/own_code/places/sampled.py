"""Deformable attention placed on the positions that its sampling points interpolate between (Zhu 2021, equation 3).

Each query has N points over some levels of a feature map, each with a weight A and a place p; a value there is
interpolated from the four positions around it, so that the sum over points is one over positions:

    W[q, s] = Σ_n A[q, n] · max(0, 1 - |x_n - x_s|) · max(0, 1 - |y_n - y_s|).

Points outside a map count zero there, so that a row may sum to less than 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from regard.hf.own_code.flow import Followed
from regard.hf.own_code.places.attended import Attended
from regard.hf.own_code.seen import Doubt, Seen


@dataclass(frozen=True, eq=False)
class Level:
    """One call of grid sampling: places [B·H, Q, P, 2] as (x, y) from -1 to 1 over a map of height × width."""

    grid: Tensor
    height: int
    width: int
    is_bilinear: bool


@dataclass(frozen=True, eq=False)
class Sampled:
    """shares [B, H, Q, N] of the points of all levels in turn."""

    shares: Tensor
    levels: Sequence[Level]

    def rows_of(self, start: int, stop: int) -> Tensor:
        """Rows start to stop as [B, H, rows, positions of all levels]."""
        batch, heads = self.shares.shape[:2]
        parts, first = [], 0
        for level in self.levels:
            count = level.grid.shape[2]
            shares = self.shares[:, :, start:stop, first : first + count]
            grid = level.grid[:, start:stop].unflatten(0, (batch, heads)).float()
            parts.append(_placed(shares.float(), grid, level.height, level.width))
            first += count
        return torch.cat(parts, -1)


def _placed(shares: Tensor, grid: Tensor, height: int, width: int) -> Tensor:
    """[B, H, rows, height · width] from shares [B, H, rows, P] and places [B, H, rows, P, 2]; NaN lies outside."""
    x = ((grid[..., 0] + 1) * width - 1) / 2
    y = ((grid[..., 1] + 1) * height - 1) / 2
    out = shares.new_zeros(*shares.shape[:-1], height * width)
    for column in (x.floor(), x.floor() + 1):
        for row in (y.floor(), y.floor() + 1):
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            near = ((1 - (x - column).abs()) * (1 - (y - row).abs())).where(inside, 0.0)
            at = (row * width + column).where(inside, 0.0).long()
            out.scatter_add_(-1, at, shares * near)
    return out


def read_sampled(attended: Attended, followed: Followed, levels: list[Level], heads: int | None) -> Seen | Doubt:
    """The attention of a module that took one softmax [B, Q, H, N] and sampled feature maps at N points a head."""
    shares = followed.made.detach()
    points = sum(level.grid.shape[2] for level in levels)
    name, module = attended.name, attended.module
    if shares.ndim != 4 or shares.shape[3] != points or (heads is not None and shares.shape[2] != heads):
        reason = f"its weights {list(shares.shape)} are not those of the {points} points that it samples"
        return Doubt(name, module, reason)
    batch, queries, num_heads, _ = shares.shape
    if not all(one.is_bilinear and one.grid.shape[:2] == (batch * num_heads, queries) for one in levels):
        return Doubt(name, module, "it samples feature maps otherwise than bilinearly, a place for each query and head")
    placed = Sampled(shares.transpose(1, 2), levels)
    shape = (batch, num_heads, queries, sum(level.height * level.width for level in levels))
    certain = ("a softmax over the points of each query", f"{len(levels)} bilinear samplings of as many points")
    return Seen(name, module, 0, shape, placed.rows_of, "sampled", certain, followed.dropped, "subunit")
