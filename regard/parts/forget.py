"""Forgetting attention: a gate per token lowers the scores of everything before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from regard.errors import UserError
from regard.inputs import Inputs, Tile, require_positions
from regard.parts.scores import _needs, spread

LOWEST = -1e5  # a gate below e to this forgets everything; sums of more would lose digits in float64


@dataclass(frozen=True)
class SumForget:
    """c_j = Σ_{l<=j} log f_l over the keys in order, with log f from per_key["log_forget"] [B,H,T]; of a query, c at
    the last key that is not after it. In float64, since sums of a long text are large."""

    def __call__(self, x: Inputs) -> Inputs:
        require_positions(x, "a forget gate")
        gate = x.per_key.get("log_forget")
        shape = f"[{x.q.shape[0]}, {x.q.shape[1]}, {x.k.shape[2]}]"
        if gate is None or gate.ndim != 3 or gate.shape[1] not in (1, x.k.shape[1], x.q.shape[1]):
            raise UserError(f"forgetting attention needs a gate per token: give per_key={{'log_forget': {shape}}}")
        if gate.shape[0] != x.q.shape[0] or gate.shape[2] != x.k.shape[2]:
            raise UserError(
                f"the gate 'log_forget' is {shape} (or fewer heads) for these inputs, got {list(gate.shape)}"
            )
        of_keys = spread(gate.double().clamp(min=LOWEST), x.q.shape[1]).cumsum(-1)
        last = torch.searchsorted(x.key_positions.contiguous(), x.query_positions.contiguous(), right=True) - 1
        if not x.k.shape[2]:
            return x.replace(per_query={**x.per_query, "forgotten": of_keys.new_zeros(x.q.shape[:3])})
        index = last.clamp(min=0)[:, None].expand(-1, x.q.shape[1], -1)
        return x.replace(
            per_query={**x.per_query, "forgotten": of_keys.gather(-1, index)},
            per_key={**x.per_key, "forgotten": of_keys},
        )


@dataclass(frozen=True)
class Forget:
    """s_ij += Σ_{j<l<=i} log f_l = c_i - c_j (Lin 2025, eq. 6). Keys in order of position."""

    reads_positions: ClassVar[bool] = True

    def __call__(self, scores: Tensor | None, tile: Tile) -> Tensor:
        total = _needs(scores, "Forget")
        if not tile.k.shape[2]:
            return total
        lowered = tile.per_query["forgotten"][..., None] - tile.per_key["forgotten"][:, :, None]
        return total + lowered.to(total.dtype)
