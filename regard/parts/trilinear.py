"""The trilinear score: what a query says, what a key says, and what both say together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from regard import core
from regard.errors import UserError
from regard.inputs import Inputs, Tile
from regard.parts.scores import _needs, spread, widened


@dataclass(frozen=True, eq=False)
class TrilinearSides:
    """q ← w_m ⊙ q, with w_q·q_i kept per query and w_k·k_j per key. w_q, w_k, w_m: [D]."""

    w_q: Tensor
    w_k: Tensor
    w_m: Tensor

    def __call__(self, x: Inputs) -> Inputs:
        for name, weight, width in (("w_q", self.w_q, x.q), ("w_k", self.w_k, x.k), ("w_m", self.w_m, x.q)):
            if tuple(weight.shape) != (width.shape[-1],):
                raise UserError(
                    f"{name} must be [{width.shape[-1]}], the width of its tokens, got {list(weight.shape)}"
                )
        q, k = widened(x.q), widened(x.k)
        return x.replace(
            q=q * self.w_m.to(q.dtype),
            per_query={**x.per_query, "query_side": q @ self.w_q.to(q.dtype)},
            per_key={**x.per_key, "key_side": spread(k @ self.w_k.to(k.dtype), x.q.shape[1])},
        )


@dataclass(frozen=True)
class AddSides:
    """s_ij += w_q·q_i + w_k·k_j, as a prepare left them. The core form leaves out w_q·q_i, the same for a whole row."""

    core_omits_row_constant: ClassVar[bool] = True

    def __call__(self, scores: Tensor | None, tile: Tile) -> Tensor:
        total = _needs(scores, "AddSides")
        sides = tile.per_query["query_side"][..., None] + tile.per_key["key_side"][:, :, None]
        return total + sides.to(total.dtype)

    def core(self, x: Inputs) -> tuple[core.Term, ...]:
        return (core.KeyBias(x.per_key["key_side"].to(torch.promote_types(x.q.dtype, torch.float32))),)
