"""One attention call as data: what to compute, what to reduce in the same pass, or why it has no such form."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from regard.core.ranges import Ranges
from regard.core.statistics import CoreStatistic
from regard.core.terms import Softmax, Term


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


@dataclass(frozen=True, eq=False)
class Watch:
    """What to reduce in one pass. key_scale c: float32 [B,H,Tk] multiplies each weight, or None.

    counted: bool [B,Tq]: rows that are not padding; other rows are treated as seeing nothing. None counts all.
    """

    statistics: tuple[CoreStatistic, ...]
    key_scale: Tensor | None = None
    counted: Tensor | None = None
