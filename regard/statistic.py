"""The Statistic: a reduction of exact weights that never needs them all at once.

Every cell (layer, head, query, key) is absorbed exactly once; states of disjoint cells merge in any order. A state
covers any part of a sequence, so the same statistic serves one forward and a generation of a row per token. Most need
one method, `of_rows` or `of_keys`; those that also restate themselves in core records (`core`) are fused into the fast
backends.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, TypeVar

import torch
from torch import Tensor

from regard import core
from regard.core.ranges import Ranges
from regard.growing import Growing, Join
from regard.mechanism import WeightKind
from regard.once import once

State = Any
"""What a statistic needs to know of the cells so far: often a Growing."""

T = TypeVar("T")
Of = Literal["weights", "norm"]
Need = Literal["tokens", "special", "same_axis"]


@dataclass(frozen=True, eq=False)
class Axis:
    """One axis of an attention map, in memory order.

    positions int64 [B,T], counted from the first valid token; valid bool [B,T], False on padding; ids int64 [B,T]
    token ids and special bool [B,T], or None where they are not known (images, sound, embeddings given directly).
    """

    positions: Tensor
    valid: Tensor
    ids: Tensor | None = None
    special: Tensor | None = None

    @property
    def length(self) -> int:
        return self.positions.shape[1]

    def part(self, where: slice) -> Axis:
        """The same for some slots, counted from 0."""
        if where.start in (None, 0) and where.stop is not None and where.stop >= self.length:
            return self
        return Axis(
            self.positions[:, where],
            self.valid[:, where],
            None if self.ids is None else self.ids[:, where],
            None if self.special is None else self.special[:, where],
        )

    def once(self, what: Hashable, make: Callable[[], T]) -> T:
        """What follows from the axis alone, computed once however many layers and statistics ask: see `regard.once`."""
        return once(self, what, make)


@dataclass(frozen=True, eq=False)
class View:
    """What a statistic may know besides weights: sizes and the two axes as far as they are known by now.

    same_axis: queries and keys are the same tokens (self-attention), so that distances and diagonals mean something.
    """

    batch: int
    heads: int
    query: Axis
    key: Axis
    same_axis: bool
    kind: WeightKind = "distribution"


@dataclass(frozen=True, eq=False)
class Block:
    """A strip of exact weights float32 or float64 [B,H,rows,keys]; excluded cells and padding rows hold 0.

    allowed: bool, broadcastable to weights, or None for all. rows and keys: the slots it covers. query, key: its axes.
    """

    weights: Tensor
    allowed: Tensor | None
    rows: slice
    keys: slice
    query: Axis
    key: Axis

    def distance(self) -> Tensor:
        """|p_i - p_j|, int64 [B,1,rows,keys]."""
        return (self.query.positions[:, None, :, None] - self.key.positions[:, None, None, :]).abs()


@dataclass(frozen=True, eq=False)
class Walked:
    """One call that a fast backend walked: the query rows `rows` of a view, on all its keys.

    ranges: which keys each of these rows may see; counted: bool [B,rows], False for rows of padding, or None for all.
    """

    view: View
    rows: slice
    ranges: Ranges
    counted: Tensor | None = None


@dataclass(frozen=True)
class Statistic(ABC):
    """A reducer of exact weights. `of="norm"` weighs each a_ij by ‖v_j W_O‖ (Kobayashi 2020, eq. 6).

    title: the name as pictures write it; head_title and head_unit: the same for its one number per head, where that is
    something else. order: where it stands in listings, smaller first. standard: whether it is watched by default.
    """

    of: Of = field(default="weights", kw_only=True)

    name: ClassVar[str]
    formula: ClassVar[str]
    title: ClassVar[str] = ""
    unit: ClassVar[str] = "weight"
    head_title: ClassVar[str] = ""
    head_unit: ClassVar[str] = ""
    order: ClassVar[int] = 1000
    standard: ClassVar[bool] = True
    shape: ClassVar[Literal["row", "key", "bins", "map", "top"]]
    defined_for: ClassVar[frozenset[WeightKind]] = frozenset({"distribution", "subunit", "nonnegative", "signed"})
    needs: ClassVar[frozenset[Need]] = frozenset()

    @property
    def label(self) -> str:
        """The name, with its parameters and weighting, that finds it in a Trace."""
        return self.name if self.of == "weights" else f"{self.name}:norm"

    def titles(self) -> tuple[str, str, str]:
        """The title, and title and unit of its one number per head, with the weighting if there is one."""
        title = self.title or self.label.partition(":")[0]
        if self.of == "norm":
            title = f"{title}, norm-weighted"
        head_title = self.head_title if self.head_title and self.of == "weights" else title
        return title, head_title, self.head_unit or self.unit

    def undefined(self, view: View) -> str | None:
        """Why this statistic means nothing for these weights, or None if it does."""
        if view.kind not in self.defined_for:
            return f"{self.name} is not defined for {view.kind} weights"
        if "same_axis" in self.needs and not view.same_axis:
            return f"{self.name} compares positions of queries and keys, which lie on different axes here"
        if "tokens" in self.needs and (view.query.ids is None or view.key.ids is None):
            return f"{self.name} needs token ids; call the model with input_ids, not with embeddings"
        if "special" in self.needs and view.key.special is None:
            return f"{self.name} needs to know the special tokens; give a tokenizer"
        return None

    @abstractmethod
    def of_block(self, block: Block, view: View) -> State:
        """The state of one block of weights. It may share the block's memory."""

    @abstractmethod
    def merge(self, a: State, b: State) -> State:
        """`a` with `b`, which covers other cells of the same sequence; `a` may be changed, `b` may not.

        In any order the same; where `b` holds the rows after those of `a`, at a cost that does not grow with `a`.
        """

    @abstractmethod
    def finish(self, state: State, view: View) -> dict[str, Tensor]:
        """Named results [B,H,…] in memory order, of their own memory."""

    @abstractmethod
    def summary(self, results: dict[str, Tensor], view: View) -> Tensor:
        """One number per head, float64 [B,H], for the head grid."""

    def core(self, view: View, rows: slice) -> tuple[core.CoreStatistic, ...] | None:
        """The same in core records, for the rows of one call on all keys; None: torch strips only."""
        return None

    def of_results(self, results: tuple[Any, ...], call: Walked) -> State:
        """The state of one call, from what a backend computed for `core`'s records. It may share their memory."""
        raise NotImplementedError(f"{self.name} states core records but not what their results are")

    def norm(self) -> Statistic:
        """The norm-weighted form."""
        return replace(self, of="norm")


@dataclass(frozen=True)
class RowStatistic(Statistic):
    """A number per query row. Write `of_rows(block, view) -> [B,H,rows]`; rows seen in several blocks are joined."""

    shape: ClassVar[Literal["row"]] = "row"
    join: ClassVar[Join] = "add"

    @abstractmethod
    def of_rows(self, block: Block, view: View) -> Tensor:
        """The number of each row, from the part of its weights in this block. [B,H,rows]."""

    def of_block(self, block: Block, view: View) -> Growing:
        return Growing(self.of_rows(block, view).to(torch.float32), (block.rows.start,))

    def of_results(self, results: tuple[Any, ...], call: Walked) -> Growing:
        return Growing(results[0], (call.rows.start,))

    def merge(self, a: Growing, b: Growing) -> Growing:
        return a.join(b, self.join)

    def finish(self, state: Growing, view: View) -> dict[str, Tensor]:
        return {"rows": state.whole(view.query.length)}

    def summary(self, results: dict[str, Tensor], view: View) -> Tensor:
        return mean_over_rows(results["rows"], self.counted_rows(view))

    def counted_rows(self, view: View) -> Tensor:
        """bool [B,Tq]: the rows that the head's summary averages."""
        return view.query.valid


@dataclass(frozen=True)
class KeyStatistic(Statistic):
    """A number per key, added over query rows in float64. Write `of_keys(block, view) -> [B,H,keys]`."""

    shape: ClassVar[Literal["key"]] = "key"

    @abstractmethod
    def of_keys(self, block: Block, view: View) -> Tensor:
        """What this block's rows give each key. [B,H,keys]."""

    def of_block(self, block: Block, view: View) -> Growing:
        return Growing(self.of_keys(block, view).to(torch.float64), (block.keys.start,))

    def of_results(self, results: tuple[Any, ...], call: Walked) -> Growing:
        return Growing(results[0], (0,))

    def merge(self, a: Growing, b: Growing) -> Growing:
        return a.join(b, "add")

    def finish(self, state: Growing, view: View) -> dict[str, Tensor]:
        return {"keys": state.whole(view.key.length)}


def mean_over_rows(rows: Tensor, counted: Tensor) -> Tensor:
    """The mean of [B,H,Tq] over the counted rows [B,Tq], float64 [B,H]; 0 where none is counted."""
    weight = counted[:, None, : rows.shape[2]].to(torch.float64)
    return (rows.to(torch.float64) * weight).sum(-1) / weight.sum(-1).clamp(min=1)
