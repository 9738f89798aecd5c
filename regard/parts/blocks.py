"""Masks by blocks of positions: near ones, random ones, any list of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from regard.core.ranges import Ranges
from regard.errors import UserError
from regard.inputs import Inputs, require_positions
from regard.parts.bands import between
from regard.parts.joined import Combinable
from regard.parts.noise import mixed_bits


@dataclass(frozen=True)
class NearBlocks(Combinable):
    """|⌊p_i / size⌋ - ⌊p_j / size⌋| <= reach: a band of blocks (Zaheer 2020, section 2)."""

    size: int
    reach: int

    def __post_init__(self) -> None:
        if self.size < 1 or self.reach < 0:
            raise UserError(
                f"near_blocks({self.size}, {self.reach}): blocks of at least 1 token, a reach of at least 0"
            )

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return self._block(query).sub(self._block(key)).abs() <= self.reach

    def ranges(self, x: Inputs) -> Ranges | None:
        require_positions(x, str(self))
        begin = (self._block(x.query_positions) - self.reach) * self.size
        return between(x, begin, begin + (2 * self.reach + 1) * self.size)

    def _block(self, positions: Tensor) -> Tensor:
        return positions.div(self.size, rounding_mode="floor")

    def __str__(self) -> str:
        return f"near_blocks({self.size}, {self.reach})"


@dataclass(frozen=True)
class RandomBlocks(Combinable):
    """Each block of queries sees `count` random blocks of keys, drawn per head from `seed` (Zaheer 2020, section 2).

    size: tokens per block; length: tokens of the sequence, beyond which nothing is drawn.
    """

    size: int
    count: int
    length: int
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size < 1 or not 1 <= self.count <= self.blocks:
            raise UserError(
                f"{self}: blocks hold at least 1 token, and 1 to {max(self.blocks, 1)} of them can be drawn"
            )

    @property
    def blocks(self) -> int:
        return -(-self.length // max(self.size, 1))

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        block = torch.arange(self.blocks, device=query.device)
        of_query = query.div(self.size, rounding_mode="floor")
        draw = mixed_bits(self.seed, head, of_query, block)
        drawn = torch.zeros_like(draw, dtype=torch.bool)
        drawn.scatter_(-1, draw.argsort(dim=-1, stable=True)[..., : self.count], True)
        of_key = key.div(self.size, rounding_mode="floor")
        inside = (of_key >= 0) & (of_key < self.blocks)
        shape = torch.broadcast_shapes(drawn.shape[:-1], of_key.shape[:-1])
        index = of_key.clamp(0, self.blocks - 1).expand(*shape, -1)
        return drawn.expand(*shape, -1).gather(-1, index) & inside

    def __str__(self) -> str:
        return f"random_blocks({self.size}, {self.count}, {self.length}, {self.seed})"


@dataclass(frozen=True, eq=False)
class Blocks(Combinable):
    """layout[h, p_i // size, p_j // size]: block-sparse attention (Child 2019, section 5.5).

    layout: bool [heads or 1, query blocks, key blocks]; positions beyond it see nothing.
    """

    layout: Tensor
    size: int

    def __post_init__(self) -> None:
        if self.size < 1 or self.layout.ndim != 3 or self.layout.dtype != torch.bool:
            raise UserError(
                "a block-sparse mask needs blocks of at least 1 token and a bool layout [heads or 1, blocks, blocks], "
                f"got size {self.size} and {self.layout.dtype} {list(self.layout.shape)}"
            )

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        i, j = (p.div(self.size, rounding_mode="floor") for p in (query, key))
        rows, columns = self.layout.shape[1:]
        inside = (i >= 0) & (i < rows) & (j >= 0) & (j < columns)
        h = head if self.layout.shape[0] > 1 else torch.zeros_like(head)
        return self.layout[h, i.clamp(0, rows - 1), j.clamp(0, columns - 1)] & inside

    def __str__(self) -> str:
        return "blocks"
