"""Heads that differ."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from regard.errors import UserError
from regard.inputs import Inputs
from regard.mechanism import Mechanism
from regard.protocol import Engine


@dataclass(frozen=True, eq=False)
class ByHead:
    """Heads that differ: each part takes a slice of the query heads, and sees them numbered from 0."""

    name: str
    source: str
    parts: tuple[tuple[slice, Mechanism], ...]

    @property
    def is_causal(self) -> bool:
        return all(mechanism.is_causal for _, mechanism in self.parts)

    def attend(self, x: Inputs, engine: Engine) -> Tensor:
        return torch.cat([mechanism.attend(cut, engine) for mechanism, cut in self._cut(x)], 1)

    def weights(self, x: Inputs, rows: slice, keys: slice, engine: Engine) -> Tensor:
        return torch.cat([mechanism.weights(cut, rows, keys, engine) for mechanism, cut in self._cut(x)], 1)

    def _cut(self, x: Inputs) -> list[tuple[Mechanism, Inputs]]:
        """Each mechanism with the inputs of its heads; raises unless every head has one mechanism, in order."""
        heads = x.q.shape[1]
        covered = [head for part, _ in self.parts for head in range(*part.indices(heads))]
        if covered != list(range(heads)):
            raise UserError(f"{self.name} must give each of {heads} heads one mechanism, in order; it gives {covered}")
        return [(mechanism, heads_of(x, part)) for part, mechanism in self.parts]

    def masked(self, mask: Any) -> ByHead:
        return replace(self, parts=tuple((part, mechanism.masked(mask)) for part, mechanism in self.parts))

    def composition(self) -> tuple[tuple[str, Any], ...]:
        return tuple((f"heads {part.start} to {part.stop}", mechanism) for part, mechanism in self.parts)

    def __str__(self) -> str:
        return self.name


def heads_of(x: Inputs, heads: slice) -> Inputs:
    """The inputs of some query heads and the key-value heads they read."""
    num_heads, groups = x.q.shape[1], x.k.shape[1]
    first, last, step = heads.indices(num_heads)
    per_group = num_heads // groups
    inside_one = first // per_group == (last - 1) // per_group
    if step != 1 or last <= first or not (inside_one or (first % per_group == 0 and last % per_group == 0)):
        raise UserError(
            f"heads {first} to {last} do not match the groups of {per_group} query heads that share keys; "
            "cut between groups or inside one"
        )
    shared = slice(first // per_group, (last - 1) // per_group + 1)

    def cut(extra: Tensor) -> Tensor:
        if extra.shape[1] == num_heads:
            return extra[:, first:last]
        return extra[:, shared] if extra.shape[1] == groups else extra

    return x.replace(
        q=x.q[:, first:last],
        k=x.k[:, shared],
        v=None if x.v is None else x.v[:, shared],
        per_query={name: cut(extra) for name, extra in x.per_query.items()},
        per_key={name: cut(extra) for name, extra in x.per_key.items()},
        allowed=None if x.allowed is None else x.allowed.head_slice(slice(first, last)),
    )
