"""Adjusts: weights -> weights, after the normaliser and with nothing renormalised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from regard.errors import UserError
from regard.inputs import Tile
from regard.mechanism import WeightKind
from regard.parts.noise import uniform
from regard.parts.scores import mixed_heads, per_head


@dataclass(frozen=True, eq=False)
class MixWeights:
    """a'_h = Σ_g U_hg a_g: heads talk after the softmax (Shazeer 2020, section 3). matrix U: [H', H].

    The result is signed and its rows do not sum to one. H' may differ from H (differential attention).
    """

    matrix: Tensor
    mixes_heads: ClassVar[bool] = True
    kind: ClassVar[WeightKind] = "signed"

    def __call__(self, weights: Tensor, tile: Tile) -> Tensor:
        return mixed_heads(self.matrix, weights)


@dataclass(frozen=True)
class LocalGaussian:
    """a_ij ← a_ij e^{-(p_j - c_i)² / 2σ²}, c the extra "centre" of each query (Luong 2015, eq. 10). sigma σ: tokens."""

    sigma: float
    kind: ClassVar[WeightKind] = "subunit"

    def __call__(self, weights: Tensor, tile: Tile) -> Tensor:
        away = tile.where.key - tile.per_query["centre"][..., None]
        return weights * (-away.square() / (2 * self.sigma**2)).exp()


@dataclass(frozen=True)
class Dropout:
    """a_ij ← a_ij · keep_ij / (1 - p), keep drawn from (seed, layer, batch, head, p_i, p_j) (Srivastava 2014).

    Acts on the output only: the weights that are shown are those before it.
    """

    p: float
    seed: int = 0
    training_noise: ClassVar[bool] = True
    reads_positions: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.p < 1:
            raise UserError(f"dropout({self.p}): a probability of at least 0 and below 1")

    def __call__(self, weights: Tensor, tile: Tile) -> Tensor:
        keep = uniform(self.seed, tile.where, weights.dtype) >= self.p
        return weights * keep / (1 - self.p)

    def __str__(self) -> str:
        return f"dropout({self.p}, {self.seed})"


@dataclass(frozen=True, eq=False)
class Subtract:
    """a'_h = a_h - λ_h a_{H+h}: the second half of 2H heads taken from the first (Ye 2024, eq. 1). λ: number or [H]."""

    share: float | Tensor
    mixes_heads: ClassVar[bool] = True
    kind: ClassVar[WeightKind] = "signed"

    def __call__(self, weights: Tensor, tile: Tile) -> Tensor:
        if weights.shape[1] % 2:
            raise UserError(f"differential attention needs score heads in pairs, got {weights.shape[1]}")
        kept, taken = weights.chunk(2, 1)
        return kept - per_head(self.share) * taken

    def __str__(self) -> str:
        return "subtract"
