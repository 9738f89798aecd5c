"""One attention call as data: what to compute, what to reduce in the same pass, or why it has no such form."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from regard.core.layout import DENSE, Layout, Paged
from regard.core.ranges import Ranges
from regard.core.statistics import CoreStatistic
from regard.core.terms import Softmax, Term


@dataclass(frozen=True, eq=False)
class Plan:
    """One attention call in core records: everything a fast backend needs, and nothing else.

    q [B,H,Tq,Dk], k [B,G,Tk,Dk], v [B,G,Tk,Dv] or None; H % G == 0 and head h reads key-value head h // (H // G).
    query_positions [B,Tq], key_positions [B,Tk]: int64 logical positions. layout: how the tokens lie. In a packed
    layout B is 1, Tq and Tk count the tokens of all documents, ranges are in each document's own key slots, and so are
    the columns of a Table; in a paged one k and v are the pages.

    compiled: what backends made of everything but q, k and v, by their own keys; shared by `over`.
    """

    q: Tensor
    k: Tensor
    v: Tensor | None
    query_positions: Tensor
    key_positions: Tensor
    terms: tuple[Term, ...]
    ranges: Ranges
    softmax: Softmax
    layout: Layout = DENSE
    compiled: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    @property
    def num_keys(self) -> int:
        """Tk: keys of the call; in a packed layout those of all documents."""
        return self.layout.keys[-1] if isinstance(self.layout, Paged) else self.k.shape[2]

    def over(self, q: Tensor, k: Tensor, v: Tensor | None) -> Plan:
        """The same call on other tensors of the same shapes, types and device; what was compiled is used again."""
        other = object.__new__(Plan)
        other.__dict__.update(self.__dict__, q=q, k=k, v=v)
        return other


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

    compiled: what backends made of it, by their own keys; a watch serves all layers of a step.
    """

    statistics: tuple[CoreStatistic, ...]
    key_scale: Tensor | None = None
    counted: Tensor | None = None
    compiled: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)
