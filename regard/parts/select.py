"""Prepares that choose which keys a query may see from queries and keys themselves: a mask as data.

What they choose is piecewise constant, so no gradient flows through the choice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from regard.core import ranges
from regard.core.ranges import Ranges
from regard.errors import UserError
from regard.inputs import Inputs, require_positions
from regard.parts.scores import widened


def narrowed(x: Inputs, seen: Ranges) -> Inputs:
    """The inputs with one more mask as data."""
    return x.replace(allowed=seen if x.allowed is None else x.allowed & seen)


@dataclass(frozen=True)
class SelectBlocks:
    """The `count` blocks of `size` keys with the best score for a query, its own block always among them.

    by="mean": q · mean of the block's keys (MoBA: Lu 2025, eq. 5-6). by="bound": Σ_d max(q_d min_d, q_d max_d), an
    upper bound of q·k over the block (Quest: Tang 2024, eq. 1). causal=True considers blocks that lie wholly in the
    query's past, and its own; keys must be in order of position.
    """

    size: int
    count: int
    by: Literal["mean", "bound"] = "mean"
    causal: bool = True

    def __post_init__(self) -> None:
        if self.size < 1 or self.count < 1:
            raise UserError(f"selecting {self.count} blocks of {self.size} keys: both must be at least 1")

    def __call__(self, x: Inputs) -> Inputs:
        require_positions(x, "selecting blocks")
        if not x.q.shape[0] or not x.q.shape[2] or not x.k.shape[2]:
            return x
        score = self.scorer(x.k.detach(), x.key_valid)
        return narrowed(x, chosen_blocks(x, score, self.size, self.count, self.causal))

    def __str__(self) -> str:
        if not self.causal:
            raise UserError("selecting blocks without a causal mask has no text form; build it in Python")
        return f"{self.by}_blocks({self.size}, {self.count})"

    def scorer(self, k: Tensor, valid: Tensor | None) -> Callable[[Inputs, slice], Tensor]:
        """What gives [B,H,rows,blocks]: how well each block fits each of these queries."""
        mean = _block_means(k, valid, self.size).transpose(-1, -2)
        low, high = (bound.transpose(-1, -2) for bound in _block_bounds(k, valid, self.size))

        def score(x: Inputs, rows: slice) -> Tensor:
            q = x.q[:, :, rows].detach()
            grouped = _grouped(q, k.shape[1])
            bound = grouped.clamp(min=0) @ high + grouped.clamp(max=0) @ low if self.by == "bound" else grouped @ mean
            return bound.reshape(*q.shape[:3], bound.shape[3])

        return score


def chosen_blocks(x: Inputs, score: Callable[[Inputs, slice], Tensor], size: int, count: int, causal: bool) -> Ranges:
    """Ranges of the best blocks of each row, its own always among them; ties to the first. In strips of rows."""
    blocks, num_queries = -(-x.k.shape[2] // size), x.q.shape[2]
    rows = max(1, ranges.STRIP_BYTES // max(1, 8 * x.q.shape[0] * x.q.shape[1] * blocks))
    table: Ranges | None = None
    for begin in range(0, max(num_queries, 1), rows):
        part = _best_blocks(x, slice(begin, min(begin + rows, num_queries)), score, size, count, causal)
        table = ranges.placed(table, part, begin, num_queries)
    assert table is not None
    return table


def _best_blocks(
    x: Inputs, rows: slice, score: Callable[[Inputs, slice], Tensor], size: int, count: int, causal: bool
) -> Ranges:
    num_keys = x.k.shape[2]
    begins = torch.arange(0, num_keys, size, device=x.q.device)
    ends = (begins + size).clamp(max=num_keys)
    at = x.query_positions[:, rows].contiguous()
    own = torch.searchsorted(x.key_positions.contiguous(), at, right=True) - 1
    own_block = own.clamp(min=0)[:, None, :, None] // size
    block = torch.arange(len(begins), device=x.q.device)
    scores = score(x, rows).masked_fill(block == own_block, float("inf"))
    if causal:
        scores = scores.masked_fill(block > own_block, -float("inf"))
    best, index = (found[..., :count] for found in scores.sort(dim=-1, descending=True, stable=True))
    index = index.masked_fill(best == -float("inf"), len(begins)).sort(-1).values
    edge = begins.new_full((1,), num_keys)
    start, stop = torch.cat([begins, edge])[index], torch.cat([ends, edge])[index]
    return Ranges(start.to(torch.int32), stop.to(torch.int32), num_keys)


def _grouped(q: Tensor, groups: int) -> Tensor:
    """[B,H,T,D] -> [B,G,H/G·T,D] for a product with each group's keys."""
    return widened(q).reshape(q.shape[0], groups, -1, q.shape[-1])


def _blocks(k: Tensor, size: int, fill: float) -> Tensor:
    """[B,G,T,D] -> [B,G,blocks,size,D], the last one filled up."""
    short = -k.shape[2] % size
    return torch.nn.functional.pad(k, (0, 0, 0, short), value=fill).unflatten(2, (-1, size))


def _block_means(k: Tensor, valid: Tensor | None, size: int) -> Tensor:
    keep = torch.ones(k.shape[0], k.shape[2], dtype=torch.bool, device=k.device) if valid is None else valid
    weight = keep[:, None, :, None].to(widened(k).dtype)
    return _blocks(widened(k) * weight, size, 0.0).sum(3) / _blocks(weight, size, 0.0).sum(3).clamp(min=1)


def _block_bounds(k: Tensor, valid: Tensor | None, size: int) -> tuple[Tensor, Tensor]:
    k = widened(k)
    bound = torch.finfo(k.dtype).max ** 0.5
    drop = torch.zeros(1, 1, 1, 1, dtype=torch.bool, device=k.device) if valid is None else ~valid[:, None, :, None]
    low = _blocks(k.masked_fill(drop, bound), size, bound).amin(3)
    high = _blocks(k.masked_fill(drop, -bound), size, -bound).amax(3)
    empty = low > high
    return low.masked_fill(empty, 0.0), high.masked_fill(empty, 0.0)


@dataclass(frozen=True, eq=False)
class SameBucket:
    """j ∈ ∪_r {h_r(k_j) = h_r(q_i)}, h_r(x) = argmax [x R_r ; -x R_r]: locality-sensitive hashing (Kitaev 2020, eq. 6).

    rotations R: [rounds, D, buckets / 2]. Keys are normalised, as shared queries and keys ask (section 2).
    The cells of the union are found a strip of rows at a time; the list is linear in tokens · bucket size.
    """

    rotations: Tensor

    def __call__(self, x: Inputs) -> Inputs:
        k = torch.nn.functional.normalize(widened(x.k), dim=-1)
        at_q, at_k = self.buckets(x.q.detach()), self.buckets(k.detach())
        at_k = at_k.repeat_interleave(x.q.shape[1] // x.k.shape[1], 1)

        def strip(begin: int, end: int) -> Tensor:
            return (at_q[:, :, begin:end, None] == at_k[:, :, None]).any(-1)

        cells = x.q.shape[0] * x.q.shape[1] * self.rotations.shape[0]
        seen = ranges.encode(strip, x.q.shape[2], x.k.shape[2], cells, max_runs=None)
        return narrowed(x.replace(k=k), seen)

    def buckets(self, x: Tensor) -> Tensor:
        """The bucket of each token in each round, int64 [B,H,T,rounds]."""
        turned = torch.einsum("bhtd,rdm->bhtrm", widened(x), self.rotations.detach().to(widened(x).dtype))
        return torch.cat([turned, -turned], -1).argmax(-1)


@dataclass(frozen=True, eq=False)
class PredictCentre:
    """c_i = S · sigmoid(vᵀ tanh(W q_i)), and only the keys within [c_i - reach, c_i + reach] (Luong 2015, eq. 9).

    w [D,M], v [M]; S is the number of valid keys. Gives each query an extra, its centre, in tokens.
    """

    w: Tensor
    v: Tensor
    reach: int

    def __post_init__(self) -> None:
        if self.reach < 1:
            raise UserError(f"a predicted window reaches at least 1 token to either side, got {self.reach}")

    def __call__(self, x: Inputs) -> Inputs:
        q = widened(x.q)
        length = x.k.shape[2] if x.key_valid is None else x.key_valid.sum(-1)[:, None, None]
        centre = length * ((q @ self.w.to(q.dtype)).tanh() @ self.v.to(q.dtype)).sigmoid()
        x = x.replace(per_query={**x.per_query, "centre": centre})
        key_positions = (
            x.key_positions[:, None].contiguous().to(centre.dtype).expand(*centre.shape[:2], -1).contiguous()
        )
        at = centre.detach()
        start = torch.searchsorted(key_positions, (at - self.reach).contiguous())
        stop = torch.searchsorted(key_positions, (at + self.reach).contiguous(), right=True)
        return narrowed(x, ranges.between(start, stop, x.k.shape[2]))


@dataclass(frozen=True, eq=False)
class Compress:
    """k̃_b = Σ_t w_t (k_{bl+t} + e_t), ṽ_b alike: each block of l keys as one (NSA: Yuan 2025, eq. 7, φ linear).

    w: [l] weights within a block, e: [l,Dk] positions within it or None. A block's position is that of its last
    key, so that a causal mask lets it be seen once it lies wholly in the past; unfinished and partly padded blocks
    are left out.
    """

    w: Tensor
    e: Tensor | None = None

    def __call__(self, x: Inputs) -> Inputs:
        size = self.w.shape[0]
        whole = x.k.shape[2] // size
        k = widened(x.k[:, :, : whole * size]).unflatten(2, (whole, size))
        k = k if self.e is None else k + self.e.to(k.dtype)
        w = self.w.to(k.dtype)
        v = None if x.v is None else w @ widened(x.v[:, :, : whole * size]).unflatten(2, (whole, size))
        last = x.key_positions[:, size - 1 : whole * size : size]
        valid = x.key_valid
        if valid is not None:
            valid = valid[:, : whole * size].unflatten(1, (whole, size)).all(-1)
        if x.allowed is not None:
            raise UserError("a mask over tokens says nothing about compressed keys; leave `allowed` out")
        return x.replace(k=w @ k, v=v, key_positions=last, key_valid=valid, per_key={}, key_axis="slots")


@dataclass(frozen=True, eq=False)
class SelectByCompressed:
    """The `count` blocks of keys to which compressed attention gives most, summed over the heads of a group, the
    first and the query's own among them (NSA: Yuan 2025, eq. 8-12, selection blocks as large as compressed ones)."""

    compress: Compress
    count: int
    scale: float | None = None

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UserError(f"selecting {self.count} blocks: at least 1")

    def __call__(self, x: Inputs) -> Inputs:
        require_positions(x, "selecting blocks")
        if not x.q.shape[0] or not x.q.shape[2] or not x.k.shape[2]:
            return x
        small = self.compress(x)
        size, blocks = self.compress.w.shape[0], -(-x.k.shape[2] // self.compress.w.shape[0])

        def score(x: Inputs, rows: slice) -> Tensor:
            return torch.nn.functional.pad(self.shared(x, small, rows), (0, blocks - small.k.shape[2]))

        return narrowed(x, chosen_blocks(x, score, size, self.count, causal=True))

    def shared(self, x: Inputs, small: Inputs, rows: slice) -> Tensor:
        """What each compressed block receives from these queries, summed over a group's heads. [B,H,rows,blocks]."""
        q, groups = x.q[:, :, rows].detach(), small.k.shape[1]
        scores = (_grouped(q, groups) @ small.k.detach().transpose(-1, -2)).reshape(*q.shape[:3], -1)
        scores = scores * (q.shape[-1] ** -0.5 if self.scale is None else self.scale)
        hidden = small.key_positions[:, None, None] > x.query_positions[:, None, rows, None]
        hidden = hidden if small.key_valid is None else hidden | ~small.key_valid[:, None, None]
        weights = scores.masked_fill(hidden, -float("inf")).softmax(-1).nan_to_num(0.0)
        total = weights.unflatten(1, (groups, -1)).sum(2).repeat_interleave(q.shape[1] // groups, 1)
        total[..., :1] = float("inf")
        return total
