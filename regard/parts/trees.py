"""Masks of trees: tokens that continue different branches, side by side."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from regard.errors import UserError
from regard.parts.joined import Combinable


@dataclass(frozen=True, eq=False)
class Tree(Combinable):
    """p_j is p_i or an ancestor of it: the branches of a tree do not see each other (SpecInfer: Miao 2024, 4.2).

    parents: integers [positions], the position of each token's parent, which comes before it; -1 for a root. Positions
    below 0 or beyond them belong to no tree: they see nothing and are not seen. Raises UserError for other parents.
    """

    parents: Tensor

    def __post_init__(self) -> None:
        parents = self.parents
        if parents.ndim != 1 or parents.is_floating_point() or parents.is_complex() or parents.dtype == torch.bool:
            raise UserError(f"parents are integers [positions], got {parents.dtype} {list(parents.shape)}")
        wrong = ((parents < -1) | (parents >= torch.arange(len(parents), device=parents.device))).nonzero()
        if len(wrong):
            at = int(wrong[0])
            raise UserError(f"a parent comes before its token, or is -1; token {at} has parent {int(parents[at])}")
        lineage = torch.eye(len(parents), dtype=torch.bool)
        for token, parent in enumerate(parents.tolist()):
            if parent >= 0:
                lineage[token] |= lineage[parent]
        object.__setattr__(self, "_lineage", lineage.to(parents.device))

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        lineage: Tensor = vars(self)["_lineage"]
        last = len(lineage) - 1
        inside = (query >= 0) & (query <= last) & (key >= 0) & (key <= last)
        return inside if last < 0 else lineage[query.clamp(0, last), key.clamp(0, last)] & inside

    def __str__(self) -> str:
        return "tree"
