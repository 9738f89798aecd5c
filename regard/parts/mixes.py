"""Mixes: what the weights do with the values. Linear in the weights, or nothing could be streamed."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from regard import core
from regard.mechanism import Inputs, Tile
from regard.parts.scores import widened


@dataclass(frozen=True)
class WeightedSum:
    """o_i = Σ_j a_ij v_j. Query heads share value heads in groups. Result [B,H,Tq,Dv], at least float32."""

    def __call__(self, weights: Tensor, tile: Tile) -> Tensor:
        if tile.v is None:
            raise ValueError("a weighted sum needs values; give v, or ask for the weights with regard.weights")
        v = widened(tile.v)
        batch, heads, num_queries, num_keys = weights.shape
        groups = v.shape[1]
        grouped = weights.to(v.dtype).reshape(batch, groups, heads // groups * num_queries, num_keys)
        return (grouped @ v).reshape(batch, heads, num_queries, v.shape[-1])

    def core(self, x: Inputs) -> core.WeightedSum:
        return core.WeightedSum()
