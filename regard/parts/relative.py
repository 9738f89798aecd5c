"""Score terms that depend on how far apart query and key are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from regard import core
from regard.core import ranges
from regard.core.ranges import Ranges
from regard.inputs import Inputs, Tile, require_positions
from regard.parts import positions
from regard.parts.masks import Combinable
from regard.parts.scores import Dot, _needs, spread, widened


@dataclass(frozen=True)
class Alibi:
    """s_ij += m_h (p_j - p_i), m_h = 2^{-8h/H} (Press 2022, section 3). The slopes follow from the number of heads."""

    depends_on_shapes_alone: ClassVar[bool] = True
    reads_positions: ClassVar[bool] = True

    def __call__(self, scores: Tensor | None, tile: Tile) -> Tensor:
        total = _needs(scores, "alibi")
        slope = positions.alibi_slopes(total.shape[1]).to(total)
        return total + slope[None, :, None, None] * (tile.where.key - tile.where.query).to(total.dtype)

    def core(self, x: Inputs) -> tuple[core.Term, ...]:
        require_positions(x, "alibi")
        return (core.Slope(positions.alibi_slopes(x.q.shape[1]).to(widened(x.q))),)

    def __str__(self) -> str:
        return "alibi"


@dataclass(frozen=True, eq=False)
class T5Bias:
    """s_ij += T[bucket(p_j - p_i), h] (Raffel 2020, section 2.1). table T: [buckets, heads]."""

    depends_on_shapes_alone: ClassVar[bool] = True
    table: Tensor
    max_distance: int = 128
    bidirectional: bool = True
    reads_positions: ClassVar[bool] = True

    def __call__(self, scores: Tensor | None, tile: Tile) -> Tensor:
        bucket = self.bucket(tile.where.key - tile.where.query)
        return _needs(scores, "T5Bias") + self.table[bucket[:, 0]].permute(0, 3, 1, 2)

    def core(self, x: Inputs) -> tuple[core.Term, ...]:
        require_positions(x, "T5Bias")
        distance = torch.arange(-self.max_distance, self.max_distance + 1, device=self.table.device)
        return (core.Distance(self.table[self.bucket(distance)].T),)

    def bucket(self, distance: Tensor) -> Tensor:
        """The row of the table for each distance."""
        return positions.t5_buckets(distance, self.table.shape[0], self.max_distance, self.bidirectional)


@dataclass(frozen=True, eq=False)
class RelativeKeys:
    """s_ij += c q_i · r_{clip(p_j - p_i, -R, R)} (Shaw 2018, eq. 4). table r: [2R + 1, Dk]; scale c None: 1/√Dk."""

    table: Tensor
    scale: float | None = None
    reads_positions: ClassVar[bool] = True

    def __call__(self, scores: Tensor | None, tile: Tile) -> Tensor:
        total, q = _needs(scores, "RelativeKeys"), widened(tile.q)
        reach = self.table.shape[0] // 2
        index = (tile.where.key - tile.where.query).clamp(-reach, reach) + reach
        by_distance = (q @ self.table.T.to(q.dtype)) * Dot(self.scale).factor(q.shape[-1])
        return total + by_distance.gather(-1, index.expand_as(total))


@dataclass(frozen=True, eq=False)
class TransformerXL:
    """s_ij = c [(q_i + u_h)·k_j + (q_i + v_h)·W_h R(p_i - p_j)], c = 1/√Dk (Dai 2019, section 3.3).

    u, v: [H,Dk]; w_r: [H,M,Dk] projects the M-wide sinusoid R of the distance.
    """

    u: Tensor
    v: Tensor
    w_r: Tensor
    reads_positions: ClassVar[bool] = True

    def __call__(self, scores: Tensor | None, tile: Tile) -> Tensor:
        q, k = widened(tile.q), spread(widened(tile.k), tile.q.shape[1])
        distance = tile.where.query - tile.where.key
        if not distance.numel():
            return q @ k.transpose(-1, -2)
        low, high = int(distance.amin()), int(distance.amax())
        steps = torch.arange(low, high + 1, device=q.device)
        u, v, w_r = (learned.to(q.dtype) for learned in (self.u, self.v, self.w_r))
        sinusoid = positions.sinusoidal(steps, w_r.shape[1]).to(q.dtype) @ w_r
        content = (q + u[:, None]) @ k.transpose(-1, -2)
        by_distance = (q + v[:, None]) @ sinusoid.transpose(-1, -2)
        found = content + by_distance.gather(-1, (distance - low).expand_as(content))
        found = found * q.shape[-1] ** -0.5
        return found if scores is None else scores + found


@dataclass(frozen=True)
class SelfPenalty:
    """s_ii -= penalty: a token attends to itself only if to nothing else (Kitaev 2020, section 2)."""

    depends_on_shapes_alone: ClassVar[bool] = True
    penalty: float = 1e5
    reads_positions: ClassVar[bool] = True

    def __call__(self, scores: Tensor | None, tile: Tile) -> Tensor:
        itself = tile.where.query == tile.where.key
        return _needs(scores, "SelfPenalty") - self.penalty * itself

    def core(self, x: Inputs) -> tuple[core.Term, ...]:
        require_positions(x, "SelfPenalty")
        return (core.Distance(torch.tensor([[0.0, -self.penalty, 0.0]], device=x.q.device).to(widened(x.q))),)

    def __str__(self) -> str:
        return f"self_penalty({self.penalty})"


# ---- adaptive span: a score term and its mask share z ---------------------------------------------------------------


def span_share(distance: Tensor, z: Tensor, ramp: float) -> Tensor:
    """m_z(d) = clamp((ramp + z - d) / ramp, 0, 1) for d >= 0 (Sukhbaatar 2019, eq. 5)."""
    return ((ramp + z - distance) / ramp).clamp(0, 1)


@dataclass(frozen=True, eq=False)
class SpanScore:
    """s_ij += log m_z(p_i - p_j), so that a = m e^s / Σ m e^s (Sukhbaatar 2019, eq. 6). z: [heads], in tokens."""

    depends_on_shapes_alone: ClassVar[bool] = True
    z: Tensor
    ramp: float
    reads_positions: ClassVar[bool] = True

    def __call__(self, scores: Tensor | None, tile: Tile) -> Tensor:
        distance = (tile.where.query - tile.where.key).to(self.z.dtype)
        return _needs(scores, "SpanScore") + self.log_share(distance, self.z[None, :, None, None])

    def log_share(self, distance: Tensor, z: Tensor) -> Tensor:
        """log m where m > 0, and 0 elsewhere, where the mask excludes the cell."""
        share = span_share(distance, z, self.ramp)
        return torch.where(share > 0, share, 1.0).log()

    def core(self, x: Inputs) -> tuple[core.Term, ...]:
        require_positions(x, "SpanScore")
        reach = max(1, math.ceil(float(self.z.detach().amax()) + self.ramp))
        distance = -torch.arange(-reach, reach + 1, device=self.z.device).to(self.z.dtype)
        return (core.Distance(self.log_share(distance[None], self.z[:, None])),)


@dataclass(frozen=True, eq=False)
class Span(Combinable):
    """0 <= p_i - p_j < z_h + ramp: what a head of adaptive span may see (Sukhbaatar 2019, section 3). z: [heads]."""

    z: Tensor
    ramp: float
    is_causal: ClassVar[bool] = True

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        reach = self.z.detach()[head]
        return (query >= key) & (query - key < reach + self.ramp)

    def ranges(self, x: Inputs) -> Ranges | None:
        require_positions(x, "span")
        if bool((x.key_positions[:, 1:] < x.key_positions[:, :-1]).any()):
            return None
        back = (self.z.detach() + self.ramp).ceil().long() - 1
        key_positions = x.key_positions.contiguous()
        first = x.query_positions[:, None] - back[None, :, None]
        start = torch.searchsorted(key_positions, first.flatten(1)).view_as(first)
        stop = torch.searchsorted(key_positions, (x.query_positions + 1).contiguous())[:, None].expand_as(start)
        return ranges.between(start, stop, x.k.shape[2])

    def __str__(self) -> str:
        return "span"
