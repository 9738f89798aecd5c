"""The Statistic: a reduction of exact weights that never needs them all at once.

Every cell (layer, head, query, key) is absorbed exactly once; states of disjoint cells merge in any order. A state is
a tensor that grows with the sequence, so the same statistic serves one forward and a generation of a row per token.
Most need one method, `of_rows` or `of_keys`; those that also restate themselves in core records (`core`) are fused
into the fast backends.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from regard import core
from regard.mechanism import WeightKind

State = dict[str, Tensor]
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
        """The same for some slots."""
        return Axis(
            self.positions[:, where],
            self.valid[:, where],
            None if self.ids is None else self.ids[:, where],
            None if self.special is None else self.special[:, where],
        )


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


@dataclass(frozen=True)
class Statistic(ABC):
    """A reducer of exact weights. `of="norm"` weighs each a_ij by ‖v_j W_O‖ (Kobayashi 2020, eq. 6)."""

    of: Of = field(default="weights", kw_only=True)

    name: ClassVar[str]
    formula: ClassVar[str]
    unit: ClassVar[str] = "weight"
    shape: ClassVar[Literal["row", "key", "bins", "map", "top"]]
    defined_for: ClassVar[frozenset[WeightKind]] = frozenset({"distribution", "subunit", "nonnegative", "signed"})
    needs: ClassVar[frozenset[Need]] = frozenset()

    @property
    def label(self) -> str:
        """The name, with its parameters and weighting, that finds it in a Trace."""
        return self.name if self.of == "weights" else f"{self.name}:norm"

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
    def start(self, view: View) -> State:
        """The state before anything was absorbed."""

    @abstractmethod
    def absorb(self, state: State, block: Block, view: View) -> State:
        """The state with one more block in it."""

    @abstractmethod
    def merge(self, a: State, b: State) -> State:
        """One state from two over disjoint cells of the same sequence."""

    @abstractmethod
    def finish(self, state: State, view: View) -> dict[str, Tensor]:
        """Named results. [B,H,…], memory order."""

    @abstractmethod
    def summary(self, results: dict[str, Tensor], view: View) -> Tensor:
        """One number per head, float64 [B,H], for the head grid."""

    def core(self, view: View, rows: slice) -> tuple[core.CoreStatistic, ...] | None:
        """The same in core records, for the rows of one call on all keys; None: torch strips only."""
        return None

    def place(self, state: State, found: tuple[Any, ...], view: View, rows: slice) -> State:
        """The state with what a backend computed for `core`'s records in it."""
        raise NotImplementedError(f"{self.name} states core records but not where their results go")

    def norm(self) -> Statistic:
        """The norm-weighted form."""
        return replace(self, of="norm")


# ---- states that grow ----------------------------------------------------------------------------------------------


def grown(tensor: Tensor, shape: tuple[int, ...], fill: float) -> Tensor:
    """The tensor padded at the end of each dimension to at least `shape`; itself if it is large enough."""
    target = [max(a, b) for a, b in zip(tensor.shape, shape, strict=True)]
    if list(tensor.shape) == target:
        return tensor
    bigger = tensor.new_full(target, fill)
    bigger[tuple(slice(0, size) for size in tensor.shape)] = tensor
    return bigger


def put(tensor: Tensor, value: Tensor, offsets: tuple[int, ...], join: Literal["add", "max"]) -> Tensor:
    """`value` joined into `tensor` at these offsets of the dimensions after [B,H]; grows the tensor if needed."""
    fill = 0.0
    need = (*tensor.shape[:2], *(o + s for o, s in zip(offsets, value.shape[2:], strict=True)))
    tensor = grown(tensor, need, fill)
    region = tensor[(slice(None), slice(None), *(slice(o, o + s) for o, s in zip(offsets, value.shape[2:])))]
    region.copy_(region + value if join == "add" else region.maximum(value.to(region.dtype)))
    return tensor


def joined(a: Tensor, b: Tensor, join: Literal["add", "max"]) -> Tensor:
    """Two states over disjoint cells as one, each padded to the larger."""
    shape = tuple(max(x, y) for x, y in zip(a.shape, b.shape, strict=True))
    a, b = grown(a, shape, 0.0), grown(b, shape, 0.0)
    return a + b if join == "add" else a.maximum(b)


@dataclass(frozen=True)
class RowStatistic(Statistic):
    """A number per query row. Write `of_rows(block, view) -> [B,H,rows]`; rows seen in several blocks are joined."""

    shape: ClassVar[Literal["row"]] = "row"
    join: ClassVar[Literal["add", "max"]] = "add"

    @abstractmethod
    def of_rows(self, block: Block, view: View) -> Tensor:
        """The number of each row, from the part of its weights in this block. [B,H,rows]."""

    def start(self, view: View) -> State:
        shape = (view.batch, view.heads, view.query.length)
        return {"rows": torch.zeros(shape, dtype=torch.float32, device=view.query.positions.device)}

    def absorb(self, state: State, block: Block, view: View) -> State:
        return {"rows": put(state["rows"], self.of_rows(block, view), (block.rows.start,), self.join)}

    def merge(self, a: State, b: State) -> State:
        return {"rows": joined(a["rows"], b["rows"], self.join)}

    def finish(self, state: State, view: View) -> dict[str, Tensor]:
        return {"rows": grown(state["rows"], (view.batch, view.heads, view.query.length), 0.0)}

    def summary(self, results: dict[str, Tensor], view: View) -> Tensor:
        return mean_over_rows(results["rows"], self.counted_rows(view))

    def counted_rows(self, view: View) -> Tensor:
        """bool [B,Tq]: the rows that the head's summary averages."""
        return view.query.valid

    def place(self, state: State, found: tuple[Any, ...], view: View, rows: slice) -> State:
        return {"rows": put(state["rows"], found[0], (rows.start,), self.join)}


@dataclass(frozen=True)
class KeyStatistic(Statistic):
    """A number per key, added over query rows in float64. Write `of_keys(block, view) -> [B,H,keys]`."""

    shape: ClassVar[Literal["key"]] = "key"

    @abstractmethod
    def of_keys(self, block: Block, view: View) -> Tensor:
        """What this block's rows give each key. [B,H,keys]."""

    def start(self, view: View) -> State:
        shape = (view.batch, view.heads, view.key.length)
        return {"keys": torch.zeros(shape, dtype=torch.float64, device=view.key.positions.device)}

    def absorb(self, state: State, block: Block, view: View) -> State:
        return {"keys": put(state["keys"], self.of_keys(block, view), (block.keys.start,), "add")}

    def merge(self, a: State, b: State) -> State:
        return {"keys": joined(a["keys"], b["keys"], "add")}

    def finish(self, state: State, view: View) -> dict[str, Tensor]:
        return {"keys": grown(state["keys"], (view.batch, view.heads, view.key.length), 0.0)}

    def place(self, state: State, found: tuple[Any, ...], view: View, rows: slice) -> State:
        return {"keys": put(state["keys"], found[0], (0,), "add")}


def mean_over_rows(rows: Tensor, counted: Tensor) -> Tensor:
    """The mean of [B,H,Tq] over the counted rows [B,Tq], float64 [B,H]; 0 where none is counted."""
    weight = counted[:, None, : rows.shape[2]].to(torch.float64)
    return (rows.to(torch.float64) * weight).sum(-1) / weight.sum(-1).clamp(min=1)
