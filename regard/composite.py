"""How whole mechanisms combine: gated branches (Sum), heads that differ (ByHead), a low-rank product (LowRank).

A composite is not a Mechanism: it has no single row of scores. `regard.run.compose` runs it by running its parts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from regard.inputs import Inputs
from regard.mechanism import Mechanism
from regard.recurrence import Recurrence

Gates = Callable[[Inputs], Tensor]
"""Inputs -> [B,H,Tq,branches]: how much of each branch a query takes."""


@dataclass(frozen=True, eq=False)
class Sum:
    """o = Σ_c g_c(q) · o_c: several attentions, gated and added. gates None: all 1.

    A branch may see other keys than the next (compressed blocks, a memory).
    """

    name: str
    source: str
    branches: tuple[Attention, ...]
    gates: Gates | None = None

    def __post_init__(self) -> None:
        if not self.branches:
            raise ValueError(f"{self.name} has no branches; give at least one attention to sum")

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, eq=False)
class ByHead:
    """Heads that differ: each part takes a slice of the query heads, and sees them numbered from 0."""

    name: str
    source: str
    parts: tuple[tuple[slice, Mechanism], ...]

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, eq=False)
class LowRank:
    """o = A(q, K̃) · A(Q̃, K̃)⁺ · A(Q̃, K) V, with `count` landmarks Q̃, K̃: means of segments (Xiong 2021, eq. 13).

    kernel A: a mechanism without mask. iterations: of the paper's approximate inverse (eq. 14); None: the exact one.
    """

    name: str
    source: str
    kernel: Mechanism
    count: int
    iterations: int | None = 6

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"{self.name} needs at least 1 landmark, got {self.count}")
        if str(self.kernel.mask) != "full":
            raise ValueError(
                f"{self.name} cannot take the mask {self.kernel.mask}: its landmarks average over the whole sequence, "
                "the future included; use full"
            )

    def __str__(self) -> str:
        return self.name


Attention = Mechanism | Recurrence | Sum | ByHead | LowRank


def heads_of(x: Inputs, heads: slice) -> Inputs:
    """The inputs of some query heads and the key-value heads they read."""
    num_heads, groups = x.q.shape[1], x.k.shape[1]
    first, last, step = heads.indices(num_heads)
    per_group = num_heads // groups
    inside_one = first // per_group == (last - 1) // per_group
    if step != 1 or last <= first or not (inside_one or (first % per_group == 0 and last % per_group == 0)):
        raise ValueError(
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


def segment_means(x: Tensor, valid: Tensor | None, count: int) -> Tensor:
    """Means of `count` segments of near equal length, over valid tokens. [B,H,T,D] -> [B,H,count,D]."""
    length = x.shape[2]
    if length < count:
        raise ValueError(f"{count} landmarks need at least as many tokens, got {length}")
    keep = torch.ones(x.shape[0], length, dtype=torch.bool, device=x.device) if valid is None else valid
    segment = torch.arange(length, device=x.device) * count // length
    member = torch.nn.functional.one_hot(segment, count).to(x.dtype) * keep[..., None]
    x = torch.where(keep[:, None, :, None], x, 0)
    return member.transpose(1, 2)[:, None] @ x / member.sum(1).clamp(min=1)[:, None, :, None]


def pseudo_inverse(a: Tensor, iterations: int | None) -> Tensor:
    """A⁺: exact, or Z ← Z (13 I - A Z (15 I - A Z (7 I - A Z))) / 4 from Z = Aᵀ / ‖A‖₁‖A‖∞ (Xiong 2021, eq. 14)."""
    if iterations is None:
        return torch.linalg.pinv(a)
    eye = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    size = a.abs().sum(-2).amax(-1) * a.abs().sum(-1).amax(-1)
    z = a.transpose(-1, -2) / size[..., None, None]
    for _ in range(iterations):
        az = a @ z
        z = z @ (13 * eye - az @ (15 * eye - az @ (7 * eye - az))) / 4
    return z
