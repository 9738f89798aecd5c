"""Mixes: what the weights do with the values. Linear in the weights, or nothing could be streamed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from regard import core
from regard.errors import UserError
from regard.inputs import Inputs, Tile
from regard.parts.scores import widened


@dataclass(frozen=True)
class WeightedSum:
    """o_i = Σ_j a_ij v_j. Query heads share value heads in groups. Result [B,H,Tq,Dv], at least float32."""

    depends_on_shapes_alone: ClassVar[bool] = True

    def __call__(self, weights: Tensor, tile: Tile) -> Tensor:
        if tile.v is None:
            raise UserError("a weighted sum needs values; give v, or ask for the weights with regard.weights")
        v = widened(tile.v)
        batch, heads, num_queries, num_keys = weights.shape
        groups = v.shape[1]
        grouped = weights.to(v.dtype).reshape(batch, groups, heads // groups * num_queries, num_keys)
        return (grouped @ v).reshape(batch, heads, num_queries, v.shape[-1])

    def core(self, x: Inputs) -> core.WeightedSum:
        return core.WeightedSum()


@dataclass(frozen=True, eq=False)
class RelativeValues:
    """o_i = Σ_j a_ij (v_j + r_{clip(p_j - p_i, -R, R)}) (Shaw 2018, eq. 3). table r: [2R + 1, Dv], shared by heads.

    The weights of a distance are summed first, so that the extra work is Tq · (2R + 1) · Dv.
    """

    table: Tensor
    reads_positions: ClassVar[bool] = True

    def __call__(self, weights: Tensor, tile: Tile) -> Tensor:
        reach = self.table.shape[0] // 2
        index = (tile.where.key - tile.where.query).clamp(-reach, reach) + reach
        by_distance = weights.new_zeros(*weights.shape[:3], 2 * reach + 1)
        by_distance = by_distance.scatter_add(-1, index.expand_as(weights), weights)
        return WeightedSum()(weights, tile) + by_distance @ self.table.to(weights.dtype)


@dataclass(frozen=True, eq=False)
class LatentValues:
    """o_i = (Σ_j a_ij c_j) W_UV: values are made from the latent after the sum (DeepSeek-V2, section 2.1.2).

    w_uv: [H,r,Dv].
    """

    w_uv: Tensor

    def __call__(self, weights: Tensor, tile: Tile) -> Tensor:
        return torch.matmul(out := WeightedSum()(weights, tile), self.w_uv.to(out.dtype))
