"""Score terms: what a query and a key have to do with each other. Applied in order; scores are float32 at least."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from regard import core
from regard.errors import UserError
from regard.inputs import Inputs, Tile, require_positions, require_shape


def widened(x: Tensor) -> Tensor:
    """At least float32: half precision is widened, float64 kept."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def per_head(value: float | Tensor) -> float | Tensor:
    """A number as it is, a [heads] tensor shaped to multiply scores [B,H,Tq,Tk]."""
    return value[None, :, None, None] if isinstance(value, Tensor) else value


def _needs(scores: Tensor | None, part: str) -> Tensor:
    if scores is None:
        raise UserError(f"{part} changes scores and cannot come first; begin with a score such as Dot()")
    return scores


@dataclass(frozen=True, eq=False)
class Dot:
    """s_ij = c · q_i · k_j (Luong 2015, section 3.1; scaled, c = 1/√Dk: Vaswani 2017, eq. 1).

    scale: a number, a tensor [heads], or None for 1/√Dk. Query heads share key-value heads in groups.
    """

    depends_on_shapes_alone: ClassVar[bool] = True
    scale: float | Tensor | None = None

    def factor(self, width: int) -> float | Tensor:
        """The scale that applies to keys of this width."""
        return width**-0.5 if self.scale is None else self.scale

    def __call__(self, scores: Tensor | None, tile: Tile) -> Tensor:
        q, k = widened(tile.q), widened(tile.k)
        batch, heads, num_queries, width = q.shape
        groups = k.shape[1]
        grouped = q.reshape(batch, groups, heads // groups * num_queries, width)
        product = (grouped @ k.transpose(-1, -2)).reshape(batch, heads, num_queries, k.shape[2])
        return (
            product.mul(per_head(self.factor(width)))
            if scores is None
            else scores + product * per_head(self.factor(width))
        )

    def core(self, x: Inputs) -> tuple[core.Term, ...]:
        return (core.Dot(self.factor(x.q.shape[-1])),)

    def check(self, x: Inputs) -> None:
        if x.q.shape[-1] != x.key_width:
            raise UserError(
                f"queries of width {x.q.shape[-1]} and keys of width {x.key_width} have no dot product; "
                "project one to the width of the other"
            )
        if isinstance(self.scale, Tensor):
            require_shape(self.scale, "Dot's scale", ((1, x.q.shape[1]),), x)

    def __str__(self) -> str:
        if isinstance(self.scale, Tensor):
            raise UserError("a dot product with a scale per head holds a tensor and has no text form")
        return "scaled_dot" if self.scale is None else "dot" if self.scale == 1.0 else f"dot({self.scale})"


@dataclass(frozen=True, eq=False)
class KeyBias:
    """s_ij += b_j. bias: [batch or 1, heads or 1, keys]."""

    depends_on_shapes_alone: ClassVar[bool] = True
    bias: Tensor

    def __call__(self, scores: Tensor | None, tile: Tile) -> Tensor:
        return _needs(scores, "KeyBias") + self.bias[:, :, None, tile.keys]

    def core(self, x: Inputs) -> tuple[core.Term, ...]:
        return (core.KeyBias(self.bias),)

    def check(self, x: Inputs) -> None:
        require_shape(self.bias, "KeyBias", ((1, x.q.shape[0]), (1, x.q.shape[1]), (x.num_keys,)), x)


@dataclass(frozen=True, eq=False)
class Slope:
    """s_ij += m_h · (p_j - p_i) (ALiBi: Press 2022, section 3). slope m: [heads]."""

    depends_on_shapes_alone: ClassVar[bool] = True
    slope: Tensor
    reads_positions: ClassVar[bool] = True

    def __call__(self, scores: Tensor | None, tile: Tile) -> Tensor:
        distance = (tile.where.key - tile.where.query).to(self.slope.dtype)
        return _needs(scores, "Slope") + self.slope[None, :, None, None] * distance

    def core(self, x: Inputs) -> tuple[core.Term, ...]:
        require_positions(x, "Slope")
        return (core.Slope(self.slope),)

    def check(self, x: Inputs) -> None:
        require_shape(self.slope, "Slope", ((x.q.shape[1],),), x)


@dataclass(frozen=True, eq=False)
class Distance:
    """s_ij += T[h, clip(p_j - p_i, -R, R)], a learned bias per distance. table T: [heads or 1, 2R + 1], R = reach."""

    depends_on_shapes_alone: ClassVar[bool] = True
    table: Tensor
    reads_positions: ClassVar[bool] = True

    def __call__(self, scores: Tensor | None, tile: Tile) -> Tensor:
        reach = self.table.shape[1] // 2
        index = (tile.where.key - tile.where.query).clamp(-reach, reach) + reach
        return _needs(scores, "Distance") + self.table[:, index[:, 0]].transpose(0, 1)

    def core(self, x: Inputs) -> tuple[core.Term, ...]:
        require_positions(x, "Distance")
        return (core.Distance(self.table),)

    def check(self, x: Inputs) -> None:
        odd = self.table.shape[-1] | 1
        require_shape(self.table, "Distance", ((1, x.q.shape[1]), (odd,)), x)


@dataclass(frozen=True, eq=False)
class Table:
    """s_ij += B_ij, as given (T5's position bias, a float mask). bias: [batch or 1, heads or 1, queries or 1, keys].

    A bias for more keys than there are (a cache with free slots) counts for the first ones.
    """

    depends_on_shapes_alone: ClassVar[bool] = True
    bias: Tensor

    def __call__(self, scores: Tensor | None, tile: Tile) -> Tensor:
        rows = tile.rows if self.bias.shape[2] > 1 else slice(None)
        return _needs(scores, "Table") + self.bias[:, :, rows, tile.keys]

    def core(self, x: Inputs) -> tuple[core.Term, ...]:
        return (core.Table(self.bias[..., : x.longest_key_axis]),)

    def check(self, x: Inputs) -> None:
        keys = max(x.longest_key_axis, self.bias.shape[-1])
        require_shape(self.bias, "Table", ((1, x.q.shape[0]), (1, x.q.shape[1]), (1, x.q.shape[2]), (keys,)), x)


@dataclass(frozen=True, eq=False)
class Softcap:
    """s = c · tanh(s / c): scores stay within ±c (Gemma 2, section 2; Bello 2017, eq. 4). cap c: logits."""

    depends_on_shapes_alone: ClassVar[bool] = True
    cap: float

    def __call__(self, scores: Tensor | None, tile: Tile) -> Tensor:
        return _needs(scores, "Softcap").div(self.cap).tanh() * self.cap

    def core(self, x: Inputs) -> tuple[core.Term, ...]:
        return (core.Softcap(self.cap),)

    def __post_init__(self) -> None:
        if not self.cap > 0:
            raise UserError(f"softcap({self.cap}): a cap is above 0")

    def __str__(self) -> str:
        return f"softcap({self.cap})"


@dataclass(frozen=True, eq=False)
class Additive:
    """s_ij = vᵀ tanh(q_i + k_j), with q and k projected by a prepare (Bahdanau 2015, appendix A.1.2).

    v: [M] or per head [H,M]. Needs M numbers per pair while it is computed.
    """

    v: Tensor

    @property
    def scratch_per_pair(self) -> int:
        return int(self.v.shape[-1])

    def __call__(self, scores: Tensor | None, tile: Tile) -> Tensor:
        q, k = widened(tile.q), spread(widened(tile.k), tile.q.shape[1])
        v = self.v.to(q.dtype)
        v = v if v.ndim == 1 else v[None, :, None, :, None]
        found = ((q[:, :, :, None] + k[:, :, None]).tanh() @ v).reshape(*q.shape[:3], k.shape[2])
        return found if scores is None else scores + found


@dataclass(frozen=True, eq=False)
class Euclidean:
    """s_ij = -γ ‖q_i - k_j‖² (Gaussian kernel: Tsai 2019, eq. 6; L2: Kim 2021, eq. 6). gamma γ: a number or [heads].

    The core form expands the square and leaves -γ‖q_i‖² out: the same for a whole row, so a softmax cancels it; it
    loses digits where large vectors nearly agree.
    """

    gamma: float | Tensor
    core_omits_row_constant: ClassVar[bool] = True
    scratch_per_pair: ClassVar[int] = 64

    def __call__(self, scores: Tensor | None, tile: Tile) -> Tensor:
        q, k = widened(tile.q), spread(widened(tile.k), tile.q.shape[1])
        found = -(q[:, :, :, None] - k[:, :, None]).square().sum(-1) * per_head(self.gamma)
        return found if scores is None else scores + found

    def core(self, x: Inputs) -> tuple[core.Term, ...]:
        square = spread(widened(x.k).square().sum(-1), x.q.shape[1])
        gamma = self.gamma[None, :, None] if isinstance(self.gamma, Tensor) else self.gamma
        return (core.Dot(2 * self.gamma), core.KeyBias(-gamma * square))

    def __str__(self) -> str:
        if isinstance(self.gamma, Tensor):
            raise UserError("a Gaussian score with a width per head holds a tensor and has no text form")
        return f"gaussian({self.gamma})"


@dataclass(frozen=True, eq=False)
class MixScores:
    """s'_h = Σ_g L_hg s_g: heads talk before the softmax (Shazeer 2020, section 3). matrix L: [H', H]."""

    matrix: Tensor
    mixes_heads: ClassVar[bool] = True

    def __call__(self, scores: Tensor | None, tile: Tile) -> Tensor:
        return mixed_heads(self.matrix, _needs(scores, "MixScores"))


def mixed_heads(matrix: Tensor, per_pair: Tensor) -> Tensor:
    """Σ_g M_hg x_g over the heads of [B,H,Tq,Tk]."""
    if matrix.shape[1] != per_pair.shape[1]:
        raise UserError(f"a head mixture {list(matrix.shape)} does not fit {per_pair.shape[1]} heads")
    return torch.einsum("hg,bgij->bhij", matrix.to(per_pair.dtype), per_pair)


def spread(per_group: Tensor, heads: int) -> Tensor:
    """[B,G,…] -> [B,H,…]: each key-value head repeated for the query heads that read it. For tiles, not for inputs."""
    return per_group.repeat_interleave(heads // per_group.shape[1], 1)
