"""Rotary positions: queries and keys turned by their position, by a rule or by tables."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from regard.errors import UserError
from regard.inputs import Inputs, require_positions
from regard.parts import positions
from regard.parts.positions import Scaling
from regard.parts.scores import widened


@dataclass(frozen=True)
class Rotary:
    """q_i ← R(p_i) q_i, k_j ← R(p_j) k_j: scores depend on p_i - p_j (Su 2021, eq. 14-16).

    width: how many leading dimensions turn (None: all); scaling: for longer inputs than in training;
    interleaved: pairs of neighbours as in the paper, else (i, i + width/2) as in Llama.
    """

    base: float = 10_000.0
    width: int | None = None
    scaling: Scaling | None = None
    interleaved: bool = False

    def __call__(self, x: Inputs) -> Inputs:
        require_positions(x, "rotary")
        width = x.q.shape[-1] if self.width is None else self.width
        if width > x.q.shape[-1]:
            raise UserError(f"rotary(width={width}) turns more dimensions than queries have, {x.q.shape[-1]}")
        frequencies, attention = self.frequencies(width, positions.length(x.query_positions, x.key_positions))
        q, k = (
            positions.rotate(widened(t) * attention, p, frequencies, self.interleaved)
            for t, p in ((x.q, x.query_positions), (x.k, x.key_positions))
        )
        return x.replace(q=q, k=k)

    def frequencies(self, width: int, length: int) -> tuple[Tensor, float]:
        """θ [width / 2] and the factor on queries and keys, for a sequence of this length."""
        plain = positions.rotary_frequencies(width, self.base)
        return (plain, 1.0) if self.scaling is None else self.scaling.frequencies(plain, self.base, length)

    def __str__(self) -> str:
        given = [] if self.base == 10_000.0 else [str(self.base)]
        given += [] if self.width is None else [f"width={self.width}"]
        given += [f"interleaved={self.interleaved}"] if self.interleaved else []
        if self.scaling is not None:
            raise UserError("rotary with a scaling has no text form; build it in Python")
        return f"rotary({', '.join(given)})" if given else "rotary"


@dataclass(frozen=True, eq=False)
class RotaryTables:
    """q_i ← R(p_i) q_i, k_j ← R(p_j) k_j, R(p) turning pair m by cos[p, m] and sin[p, m] (Su 2021, eq. 34).

    cos, sin: [positions, width / 2]; dimensions beyond the width are left. interleaved: pairs of neighbours, else
    (i, i + width / 2).
    """

    cos: Tensor
    sin: Tensor
    interleaved: bool = False

    def __post_init__(self) -> None:
        if self.cos.ndim != 2 or self.cos.shape != self.sin.shape:
            raise UserError(
                f"cos and sin are both [positions, width / 2], got {list(self.cos.shape)} and {list(self.sin.shape)}"
            )

    def __call__(self, x: Inputs) -> Inputs:
        require_positions(x, "rotary_tables")
        if 2 * self.cos.shape[1] > x.q.shape[-1]:
            raise UserError(
                f"tables for {2 * self.cos.shape[1]} dimensions do not fit queries of width {x.q.shape[-1]}"
            )
        last = positions.length(x.query_positions, x.key_positions) - 1
        if last >= self.cos.shape[0]:
            raise UserError(f"position {last} lies beyond the tables' {self.cos.shape[0]} positions")
        q, k = (self._turned(widened(t), at) for t, at in ((x.q, x.query_positions), (x.k, x.key_positions)))
        return x.replace(q=q, k=k)

    def _turned(self, x: Tensor, at: Tensor) -> Tensor:
        cos, sin = (table[at.clamp(min=0)][:, None].to(x.dtype) for table in (self.cos, self.sin))
        return positions.turned(x, cos, sin, self.interleaved)
