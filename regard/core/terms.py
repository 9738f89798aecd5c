"""Scores and what becomes of them, as data: terms apply in order, left to right; p are positions, h the query head."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Dot:
    """s = scale · (q · k). scale: a number, or a tensor [heads]."""

    scale: float | Tensor


@dataclass(frozen=True, eq=False)
class KeyBias:
    """s += bias[b, h, j]. bias: [batch or 1, heads or 1, keys]."""

    bias: Tensor


@dataclass(frozen=True, eq=False)
class Slope:
    """s += slope[h] · (p_j - p_i) (ALiBi). slope: [heads]."""

    slope: Tensor


@dataclass(frozen=True, eq=False)
class Distance:
    """s += table[h, clip(p_j - p_i, -R, R) + R]. table: [heads or 1, 2R + 1]."""

    table: Tensor


@dataclass(frozen=True, eq=False)
class Table:
    """s += bias[b, h, i, j], as given. bias: [batch or 1, heads or 1, queries or 1, keys]."""

    bias: Tensor


@dataclass(frozen=True, eq=False)
class Softcap:
    """s = cap · tanh(s / cap)."""

    cap: float


Term = Dot | KeyBias | Slope | Distance | Table | Softcap


@dataclass(frozen=True, eq=False)
class Softmax:
    """a = e^s / (e^sink + Σ e^s). sink: one extra logit per head [heads], or None for no extra term."""

    sink: Tensor | None = None


@dataclass(frozen=True, eq=False)
class WeightedSum:
    """o_i = Σ_j a_ij v_j."""
