"""The closed core: the small vocabulary that fast backends understand.

Parts of a mechanism and statistics are open: anyone may write one in torch. Those that restate themselves in these
records run on every fast backend. A record is data only; a backend matches records and never calls a part. A new
record is a deliberate change to what every backend accepts.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from regard.ranges import Ranges

# ---- scores: terms apply in order, left to right; p are positions, h the query head --------------------------------


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


@dataclass(frozen=True, eq=False)
class Plan:
    """One attention call in core records: everything a fast backend needs, and nothing else.

    q [B,H,Tq,Dk], k [B,G,Tk,Dk], v [B,G,Tk,Dv] or None; H % G == 0 and head h reads key-value head h // (H // G).
    query_positions [B,Tq], key_positions [B,Tk]: int64 logical positions.
    """

    q: Tensor
    k: Tensor
    v: Tensor | None
    query_positions: Tensor
    key_positions: Tensor
    terms: tuple[Term, ...]
    ranges: Ranges
    softmax: Softmax


@dataclass(frozen=True)
class Refusal:
    """Why a composition or a backend cannot: the part that stands in the way, and the reason."""

    part: str
    reason: str

    def __str__(self) -> str:
        return f"{self.part}: {self.reason}"


# ---- statistics: each a reduction of the exact weights a_ij (times c_j, where a key scale is given) -----------------


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


CoreStatistic = RowEntropy | RowMax | RowSum | RowMatch | RowDistance | TopK | ColumnMass | DistanceHistogram | Pool


@dataclass(frozen=True, eq=False)
class Watch:
    """What to reduce in one pass. key_scale c: float32 [B,H,Tk] multiplies each weight, or None.

    counted: bool [B,Tq]: rows that are not padding; other rows are treated as seeing nothing. None counts all.
    """

    statistics: tuple[CoreStatistic, ...]
    key_scale: Tensor | None = None
    counted: Tensor | None = None
