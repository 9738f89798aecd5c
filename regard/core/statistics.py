"""Statistics as data: each a reduction of the exact weights a_ij (times c_j, where a key scale is given)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class RowEntropy:
    """H_i = -Σ_j a_ij log a_ij, in nats. Gives [B,H,Tq] float32. Not defined with a key scale."""


@dataclass(frozen=True, eq=False)
class RowMax:
    """max_j a_ij. Gives [B,H,Tq] float32."""


@dataclass(frozen=True, eq=False)
class RowSum:
    """Σ_j a_ij f_j. feature f: float32 [B or 1, Tk]. Gives [B,H,Tq] float32."""

    feature: Tensor


@dataclass(frozen=True, eq=False)
class RowMatch:
    """Σ_j a_ij [query_label_i = key_label_j]. Labels: int32 [B,Tq] and [B,Tk]. Gives [B,H,Tq] float32."""

    query_labels: Tensor
    key_labels: Tensor


@dataclass(frozen=True, eq=False)
class RowDistance:
    """Σ_j a_ij |p_i - p_j|, in tokens. Gives [B,H,Tq] float32."""


@dataclass(frozen=True, eq=False)
class TopK:
    """The k largest a_ij of each row, largest first, ties to the lowest key.

    Gives (weights float32 [B,H,Tq,k], keys int32 [B,H,Tq,k]); unused places hold weight 0 and key -1.
    """

    k: int


@dataclass(frozen=True, eq=False)
class ColumnMass:
    """Σ_i a_ij over the counted rows. Gives [B,H,Tk] float64."""


@dataclass(frozen=True, eq=False)
class DistanceHistogram:
    """Σ_i Σ_j a_ij [bin(|p_i - p_j|) = b] over the counted rows. Gives [B,H,bins] float64.

    bin(0) = 0, bin(d) = 1 + floor(log2 d), the last bin takes all that is farther.
    """

    bins: int


@dataclass(frozen=True, eq=False)
class Pool:
    """Sum and maximum of a_ij over cells of 2^query_shift rows × 2^key_shift keys, anchored at slot 0.

    The first row of this call has slot query_offset, the first key slot 0. Gives (sum float64, max float32), both
    [B, H, ceil((query_offset + Tq) / 2^query_shift) - query_offset // 2^query_shift, ceil(Tk / 2^key_shift)].
    """

    query_shift: int
    key_shift: int
    query_offset: int = 0

    def cells(self, queries: int, keys: int) -> tuple[int, int]:
        """Cells per side of a map: rows from the offset's cell on, keys from slot 0."""
        first = self.query_offset >> self.query_shift
        rows = -(-(self.query_offset + queries) // (1 << self.query_shift)) - first
        return rows, -(-keys // (1 << self.key_shift))


CoreStatistic = RowEntropy | RowMax | RowSum | RowMatch | RowDistance | TopK | ColumnMass | DistanceHistogram | Pool
