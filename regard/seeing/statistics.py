"""The statistics that regard ships, each exact; a_ij is the weight of query i on key j, p a logical position.

Formulas and their numerical limits follow from the weights being exact: within 1e-6 + 2.4e-7·σ·a of a dense
computation (σ the score scale); sums over rows are float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from regard import core
from regard.mechanism import WeightKind
from regard.statistic import (
    Block,
    KeyStatistic,
    Need,
    RowStatistic,
    State,
    Statistic,
    View,
    grown,
    joined,
    mean_over_rows,
    put,
)

UNSIGNED: frozenset[WeightKind] = frozenset({"distribution", "subunit", "nonnegative"})
MASSES: frozenset[WeightKind] = frozenset({"distribution", "subunit"})
SAME_AXIS: frozenset[Need] = frozenset({"same_axis"})


# ---- a number per row -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entropy(RowStatistic):
    """H_i = -Σ_j a_ij ln a_ij: how spread a row is, in nats; 0 for one key, ln n for n equal ones."""

    name: ClassVar[str] = "entropy"
    formula: ClassVar[str] = "H_i = -Σ_j a_ij ln a_ij"
    unit: ClassVar[str] = "nats"
    defined_for: ClassVar[frozenset[WeightKind]] = MASSES

    def undefined(self, view: View) -> str | None:
        if self.of == "norm":
            return f"{self.name} is defined for weights, not for norm-weighted ones; use of='weights'"
        return super().undefined(view)

    def of_rows(self, block: Block, view: View) -> Tensor:
        return torch.special.entr(block.weights).sum(-1)

    def core(self, view: View, rows: slice) -> tuple[core.CoreStatistic, ...]:
        return (core.RowEntropy(),)


@dataclass(frozen=True)
class EffectiveSpan(Entropy):
    """e^{H_i}: the number of equally weighted keys that would be as spread as this row."""

    name: ClassVar[str] = "span"
    formula: ClassVar[str] = "e^{H_i}, H_i = -Σ_j a_ij ln a_ij"
    unit: ClassVar[str] = "tokens"

    def finish(self, state: State, view: View) -> dict[str, Tensor]:
        return {"rows": super().finish(state, view)["rows"].exp()}


@dataclass(frozen=True)
class Maximum(RowStatistic):
    """max_j a_ij: the weight of the strongest link of a row."""

    name: ClassVar[str] = "max"
    formula: ClassVar[str] = "max_j a_ij"
    join: ClassVar[Literal["add", "max"]] = "max"
    defined_for: ClassVar[frozenset[WeightKind]] = UNSIGNED

    def of_rows(self, block: Block, view: View) -> Tensor:
        return block.weights.amax(-1) if block.weights.shape[-1] else block.weights.sum(-1)

    def core(self, view: View, rows: slice) -> tuple[core.CoreStatistic, ...]:
        return (core.RowMax(),)


@dataclass(frozen=True)
class RowMass(RowStatistic):
    """Σ_j a_ij: what a row gives to its keys; the rest of it went to a learned sink."""

    name: ClassVar[str] = "mass"
    formula: ClassVar[str] = "Σ_j a_ij"

    def undefined(self, view: View) -> str | None:
        if view.kind == "distribution" and self.of == "weights":
            return "mass is 1 for every row of a softmax without a sink"
        return super().undefined(view)

    def of_rows(self, block: Block, view: View) -> Tensor:
        return block.weights.sum(-1)

    def core(self, view: View, rows: slice) -> tuple[core.CoreStatistic, ...]:
        return (core.RowSum(torch.ones_like(view.key.positions, dtype=torch.float32)),)


@dataclass(frozen=True)
class SinkMass(RowStatistic):
    """Σ_{p_j < count} a_ij: mass on the first tokens (attention sinks: Xiao 2024, section 3.1)."""

    count: int = 4
    name: ClassVar[str] = "sink"
    formula: ClassVar[str] = "Σ_{p_j < count} a_ij"

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"sink mass counts at least 1 first token, got {self.count}")

    def of_rows(self, block: Block, view: View) -> Tensor:
        first = (block.key.positions < self.count)[:, None, None]
        return (block.weights * first).sum(-1)

    def core(self, view: View, rows: slice) -> tuple[core.CoreStatistic, ...]:
        return (core.RowSum((view.key.positions < self.count).float()),)


@dataclass(frozen=True)
class SpecialMass(RowStatistic):
    """Σ_{j special} a_ij: mass on special tokens ([CLS], [SEP], <bos> …)."""

    name: ClassVar[str] = "special"
    formula: ClassVar[str] = "Σ_{j special} a_ij"
    needs: ClassVar[frozenset[Need]] = frozenset({"special"})

    def of_rows(self, block: Block, view: View) -> Tensor:
        assert block.key.special is not None
        return (block.weights * block.key.special[:, None, None]).sum(-1)

    def core(self, view: View, rows: slice) -> tuple[core.CoreStatistic, ...]:
        assert view.key.special is not None
        return (core.RowSum(view.key.special.float()),)


@dataclass(frozen=True)
class MeanDistance(RowStatistic):
    """Σ_j a_ij |p_i - p_j|: how far a row looks on average, in tokens (Vig 2019, section 4)."""

    name: ClassVar[str] = "distance"
    formula: ClassVar[str] = "Σ_j a_ij |p_i - p_j|"
    unit: ClassVar[str] = "tokens"
    needs: ClassVar[frozenset[Need]] = SAME_AXIS

    def of_rows(self, block: Block, view: View) -> Tensor:
        return (block.weights * block.distance()).sum(-1)

    def core(self, view: View, rows: slice) -> tuple[core.CoreStatistic, ...]:
        return (core.RowDistance(),)


@dataclass(frozen=True)
class PreviousToken(RowStatistic):
    """a_{i,i-1}: mass on the token before; the head's score is its mean over rows that have one."""

    name: ClassVar[str] = "previous"
    formula: ClassVar[str] = "Σ_j a_ij [p_j = p_i - 1]"
    needs: ClassVar[frozenset[Need]] = SAME_AXIS

    def of_rows(self, block: Block, view: View) -> Tensor:
        return _matched(block.weights, block.query.positions - 1, block.key.positions)

    def core(self, view: View, rows: slice) -> tuple[core.CoreStatistic, ...]:
        return (_match(view.query.positions[:, rows] - 1, view.key.positions),)

    def counted_rows(self, view: View) -> Tensor:
        return view.query.valid & (view.query.positions > 0)


@dataclass(frozen=True)
class DuplicateToken(RowStatistic):
    """Mass on other places of the same token; the head's score is its mean over rows whose token came before."""

    name: ClassVar[str] = "duplicate"
    formula: ClassVar[str] = "Σ_{j ≠ i} a_ij [id_j = id_i]"
    needs: ClassVar[frozenset[Need]] = frozenset({"same_axis", "tokens"})

    def of_rows(self, block: Block, view: View) -> Tensor:
        assert block.query.ids is not None and block.key.ids is not None
        same = _matched(block.weights, block.query.ids, block.key.ids)
        return (same - _matched(block.weights, block.query.positions, block.key.positions)).clamp(min=0)

    def core(self, view: View, rows: slice) -> tuple[core.CoreStatistic, ...]:
        assert view.query.ids is not None and view.key.ids is not None
        same = _match(view.query.ids[:, rows], view.key.ids)
        return (same, _match(view.query.positions[:, rows], view.key.positions))

    def place(self, state: State, found: tuple[Any, ...], view: View, rows: slice) -> State:
        return super().place(state, ((found[0] - found[1]).clamp(min=0),), view, rows)

    def counted_rows(self, view: View) -> Tensor:
        return view.query.valid & seen_before(view)


@dataclass(frozen=True)
class Induction(RowStatistic):
    """Mass on tokens that follow an earlier place of this token (Olsson 2022); mean over rows whose token came before.

    On repeated random tokens, [BOS] X X, this is the attention from i to i - (T - 1), T the length of X.
    """

    name: ClassVar[str] = "induction"
    formula: ClassVar[str] = "Σ_j a_ij [id_{j-1} = id_i]"
    needs: ClassVar[frozenset[Need]] = frozenset({"same_axis", "tokens"})

    def of_rows(self, block: Block, view: View) -> Tensor:
        assert block.query.ids is not None
        return _matched(block.weights, block.query.ids, followed(view)[:, block.keys])

    def core(self, view: View, rows: slice) -> tuple[core.CoreStatistic, ...]:
        assert view.query.ids is not None
        return (_match(view.query.ids[:, rows], followed(view)),)

    def counted_rows(self, view: View) -> Tensor:
        return view.query.valid & seen_before(view)


def followed(view: View) -> Tensor:
    """The id of the token before each key, -1 for the first of a sequence. int64 [B,Tk]."""
    assert view.key.ids is not None
    before = torch.nn.functional.pad(view.key.ids, (1, 0), value=-1)[:, :-1]
    return torch.where(view.key.positions > 0, before, -1)


def seen_before(view: View) -> Tensor:
    """bool [B,T]: the token occurred earlier in its row, padding aside."""
    assert view.query.ids is not None
    found = []
    for ids, valid in zip(view.query.ids, view.query.valid, strict=True):
        slots = torch.arange(ids.shape[0], device=ids.device)
        _, group = torch.unique(ids, return_inverse=True)
        first = torch.full_like(slots, ids.shape[0]).scatter_reduce(0, group, slots.where(valid, len(ids)), "amin")
        found.append(first[group] < slots)
    return torch.stack(found)


def _matched(weights: Tensor, query_labels: Tensor, key_labels: Tensor) -> Tensor:
    return (weights * (query_labels[:, None, :, None] == key_labels[:, None, None, :])).sum(-1)


def _match(query_labels: Tensor, key_labels: Tensor) -> core.RowMatch:
    return core.RowMatch(query_labels.to(torch.int32), key_labels.to(torch.int32))


# ---- a number per key, per distance, per cell -----------------------------------------------------------------------


@dataclass(frozen=True)
class Received(KeyStatistic):
    """m_j = Σ_i a_ij: the attention a key receives (H2O: Zhang 2023, section 4).

    The head's number is the largest share of all mass that one key receives.
    """

    name: ClassVar[str] = "received"
    formula: ClassVar[str] = "m_j = Σ_i a_ij"

    def of_keys(self, block: Block, view: View) -> Tensor:
        return block.weights.sum(-2, dtype=torch.float64)

    def summary(self, results: dict[str, Tensor], view: View) -> Tensor:
        keys = results["keys"]
        return keys.amax(-1) / keys.sum(-1).clamp(min=1e-30)

    def core(self, view: View, rows: slice) -> tuple[core.CoreStatistic, ...]:
        return (core.ColumnMass(),)


@dataclass(frozen=True)
class DistanceHistogram(Statistic):
    """Share of a head's mass by distance: bin 0 is distance 0, bin b ≥ 1 is 2^(b-1) ≤ |p_i - p_j| < 2^b.

    The head's number is the mean bin.
    """

    bins: int = 18
    name: ClassVar[str] = "distances"
    formula: ClassVar[str] = "Σ_i Σ_j a_ij [bin(|p_i - p_j|) = b] / Σ_i Σ_j a_ij"
    unit: ClassVar[str] = "share of mass"
    shape: ClassVar[Literal["bins"]] = "bins"
    needs: ClassVar[frozenset[Need]] = SAME_AXIS

    def start(self, view: View) -> State:
        shape = (view.batch, view.heads, self.bins)
        return {"bins": torch.zeros(shape, dtype=torch.float64, device=view.key.positions.device)}

    def absorb(self, state: State, block: Block, view: View) -> State:
        index = torch.frexp(block.distance().double()).exponent.long()  # d = m · 2^e, 1/2 <= m < 1: exact, unlike log2
        index = index.clamp(max=self.bins - 1).expand(block.weights.shape)
        mass = state["bins"].clone()
        mass.scatter_add_(-1, index.flatten(2), block.weights.flatten(2).to(torch.float64))
        return {"bins": mass}

    def merge(self, a: State, b: State) -> State:
        return {"bins": a["bins"] + b["bins"]}

    def finish(self, state: State, view: View) -> dict[str, Tensor]:
        return {"bins": state["bins"] / state["bins"].sum(-1, keepdim=True).clamp(min=1e-30)}

    def summary(self, results: dict[str, Tensor], view: View) -> Tensor:
        return (results["bins"] * torch.arange(self.bins, device=results["bins"].device)).sum(-1)

    def core(self, view: View, rows: slice) -> tuple[core.CoreStatistic, ...]:
        return (core.DistanceHistogram(self.bins),)

    def place(self, state: State, found: tuple[Any, ...], view: View, rows: slice) -> State:
        return {"bins": state["bins"] + found[0]}


@dataclass(frozen=True)
class TopK(Statistic):
    """The k strongest links of each row, strongest first, ties to the lowest key, and the mass of the rest.

    Rows hold min(k, keys) places; unused ones have weight 0 and key -1.
    """

    k: int = 8
    name: ClassVar[str] = "top"
    formula: ClassVar[str] = "the k largest a_ij of row i, and Σ_j a_ij minus them"
    shape: ClassVar[Literal["top"]] = "top"
    defined_for: ClassVar[frozenset[WeightKind]] = UNSIGNED

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f"top-k keeps at least 1 link, got k={self.k}")

    def start(self, view: View) -> State:
        shape = (view.batch, view.heads, view.query.length, min(self.k, view.key.length))
        device = view.query.positions.device
        return {
            "weights": torch.zeros(shape, dtype=torch.float32, device=device),
            "keys": torch.full(shape, -1, dtype=torch.int32, device=device),
            "mass": torch.zeros(shape[:3], dtype=torch.float32, device=device),
        }

    def absorb(self, state: State, block: Block, view: View) -> State:
        best = block.weights.float().sort(dim=-1, descending=True, stable=True)
        weights, keys = best.values[..., : self.k], best.indices[..., : self.k].to(torch.int32) + block.keys.start
        return self._put(state, weights, keys.where(weights > 0, -1), block.weights.sum(-1), block.rows, view)

    def _put(self, state: State, weights: Tensor, keys: Tensor, mass: Tensor, rows: slice, view: View) -> State:
        kept = min(self.k, view.key.length)
        short = kept - weights.shape[-1]
        weights, keys = (
            torch.nn.functional.pad(weights, (0, short)),
            torch.nn.functional.pad(keys, (0, short), value=-1),
        )
        shape = (*weights.shape[:2], rows.start + weights.shape[2], kept)
        all_weights, all_keys = grown(state["weights"], shape, 0.0), grown(state["keys"], shape, -1)
        at = (slice(None), slice(None), slice(rows.start, rows.start + weights.shape[2]))
        fresh = not bool((all_keys[at] >= 0).any())
        both = (weights, keys) if fresh else _best_of((all_weights[at], all_keys[at]), (weights, keys), kept)
        all_weights[at], all_keys[at] = both
        return {"weights": all_weights, "keys": all_keys, "mass": put(state["mass"], mass, (rows.start,), "add")}

    def merge(self, a: State, b: State) -> State:
        shape = tuple(max(x, y) for x, y in zip(a["weights"].shape, b["weights"].shape, strict=True))
        pairs = [(grown(s["weights"], shape, 0.0), grown(s["keys"], shape, -1)) for s in (a, b)]
        weights, keys = _best_of(pairs[0], pairs[1], shape[-1])
        return {"weights": weights, "keys": keys, "mass": joined(a["mass"], b["mass"], "add")}

    def finish(self, state: State, view: View) -> dict[str, Tensor]:
        rest = (state["mass"] - state["weights"].sum(-1)).clamp(min=0)
        return {"weights": state["weights"], "keys": state["keys"], "rest": rest}

    def summary(self, results: dict[str, Tensor], view: View) -> Tensor:
        return mean_over_rows(results["weights"].sum(-1), view.query.valid)

    def core(self, view: View, rows: slice) -> tuple[core.CoreStatistic, ...]:
        return (
            core.TopK(min(self.k, view.key.length)),
            core.RowSum(torch.ones_like(view.key.positions, dtype=torch.float32)),
        )

    def place(self, state: State, found: tuple[Any, ...], view: View, rows: slice) -> State:
        (weights, keys), mass = found
        return self._put(state, weights, keys, mass, rows, view)


def _best_of(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor], k: int) -> tuple[Tensor, Tensor]:
    """The k best of two lists of links, by weight, then by lowest key; unused places have key -1 and weight 0."""
    weights, keys = torch.cat([a[0], b[0]], -1), torch.cat([a[1], b[1]], -1)
    last = torch.iinfo(keys.dtype).max
    by_key = keys.where(keys >= 0, last).argsort(dim=-1, stable=True)
    weights, keys = weights.gather(-1, by_key), keys.gather(-1, by_key)
    best = weights.sort(dim=-1, descending=True, stable=True)
    return best.values[..., :k], keys.gather(-1, best.indices)[..., :k]


@dataclass(frozen=True)
class Overview(Statistic):
    """A map of all weights at a bounded resolution: the mean over allowed pairs, and the maximum, of each cell.

    A cell is 2^z × 2^z' tokens, anchored at the first slot, each side the smallest power of two that keeps the axis
    within `resolution` cells; as a sequence grows, cells are merged two by two. Up to `resolution` tokens a cell is
    one pair, and the map is the exact matrix.
    """

    resolution: int = 128
    name: ClassVar[str] = "overview"
    formula: ClassVar[str] = "mean and max of a_ij over cells of 2^z × 2^z' tokens"
    shape: ClassVar[Literal["map"]] = "map"

    def __post_init__(self) -> None:
        if self.resolution < 1:
            raise ValueError(f"an overview has at least 1 cell a side, got {self.resolution}")

    def start(self, view: View) -> State:
        shifts = [shift_for(axis.length, self.resolution) for axis in (view.query, view.key)]
        shape = tuple(cells(axis.length, shift) for axis, shift in zip((view.query, view.key), shifts))
        device = view.query.positions.device
        heads = (view.batch, view.heads)
        return {
            "sum": torch.zeros((*heads, *shape), dtype=torch.float64, device=device),
            "max": torch.zeros((*heads, *shape), dtype=torch.float32, device=device),
            "count": torch.zeros((view.batch, 1, *shape), dtype=torch.float64, device=device),
            "shifts": torch.tensor(shifts),
        }

    def absorb(self, state: State, block: Block, view: View) -> State:
        state = self._fitted(state, view)
        row_shift, key_shift = state["shifts"].tolist()
        allowed = torch.ones((1, 1, 1, 1), dtype=torch.bool) if block.allowed is None else block.allowed
        allowed = allowed.to(block.weights.device) & block.query.valid[:, None, :, None]
        allowed = allowed.expand(-1, -1, *block.weights.shape[2:])
        offsets = (block.rows.start >> row_shift, block.keys.start >> key_shift)
        at = (block.rows.start, block.keys.start)
        found = (
            pooled(block.weights.to(torch.float64), at, (row_shift, key_shift), "sum"),
            pooled(block.weights.float(), at, (row_shift, key_shift), "amax"),
            pooled(allowed.to(torch.float64), at, (row_shift, key_shift), "sum"),
        )
        return self._put(state, found, offsets)

    def _put(self, state: State, found: tuple[Tensor, ...], offsets: tuple[int, int]) -> State:
        heads = max(state["count"].shape[1], found[2].shape[1])
        count = state["count"].expand(-1, heads, -1, -1).contiguous()
        return {
            "sum": put(state["sum"], found[0], offsets, "add"),
            "max": put(state["max"], found[1], offsets, "max"),
            "count": put(count, found[2].expand(count.shape[0], heads, -1, -1), offsets, "add"),
            "shifts": state["shifts"],
        }

    def _fitted(self, state: State, view: View, least: tuple[int, int] = (0, 0)) -> State:
        """The state with cells merged until both axes fit the resolution again."""
        for side, axis in enumerate((view.query, view.key)):
            target = max(shift_for(axis.length, self.resolution), least[side])
            while int(state["shifts"][side]) < target:
                state = _coarser(state, side)
        return state

    def merge(self, a: State, b: State) -> State:
        for side in (0, 1):
            while int(a["shifts"][side]) < int(b["shifts"][side]):
                a = _coarser(a, side)
            while int(b["shifts"][side]) < int(a["shifts"][side]):
                b = _coarser(b, side)
        heads = max(a["count"].shape[1], b["count"].shape[1])
        counts = [state["count"].expand(-1, heads, -1, -1) for state in (a, b)]
        return {
            "sum": joined(a["sum"], b["sum"], "add"),
            "max": joined(a["max"], b["max"], "max"),
            "count": joined(counts[0], counts[1], "add"),
            "shifts": a["shifts"],
        }

    def finish(self, state: State, view: View) -> dict[str, Tensor]:
        mean = (state["sum"] / state["count"].clamp(min=1)).float()
        return {"mean": mean, "max": state["max"], "count": state["count"], "shifts": state["shifts"]}

    def summary(self, results: dict[str, Tensor], view: View) -> Tensor:
        return results["max"].amax((-1, -2)).to(torch.float64)

    def core(self, view: View, rows: slice) -> tuple[core.CoreStatistic, ...] | None:
        shifts = [shift_for(axis.length, self.resolution) for axis in (view.query, view.key)]
        return (core.Pool(shifts[0], shifts[1], rows.start),)

    def place(self, state: State, found: tuple[Any, ...], view: View, rows: slice) -> State:
        (total, largest), count = found
        state = self._fitted(state, view)
        return self._put(state, (total, largest, count), (rows.start >> int(state["shifts"][0]), 0))


def shift_for(length: int, resolution: int) -> int:
    """The smallest z with ceil(length / 2^z) <= resolution."""
    shift = 0
    while cells(length, shift) > resolution:
        shift += 1
    return shift


def cells(length: int, shift: int) -> int:
    """How many cells of 2^shift tokens cover an axis."""
    return -(-length >> shift) if length else 0


def pooled(values: Tensor, at: tuple[int, int], shifts: tuple[int, int], how: Literal["sum", "amax"]) -> Tensor:
    """[B,H,rows,keys] from slot `at` reduced over anchored cells of 2^shifts, nonnegative values for amax."""
    for dim, begin, shift in ((3, at[1], shifts[1]), (2, at[0], shifts[0])):
        length = values.shape[dim]
        lead = begin & ((1 << shift) - 1)
        tail = -(begin + length) & ((1 << shift) - 1)
        pad = (lead, tail) if dim == 3 else (0, 0, lead, tail)
        padded = torch.nn.functional.pad(values, pad)
        split = padded.unflatten(dim, (-1, 1 << shift)) if padded.shape[dim] else padded.unsqueeze(dim + 1)
        values = split.sum(dim + 1) if how == "sum" else split.amax(dim + 1)
    return values


def _coarser(state: State, side: int) -> State:
    """Cells merged two by two along one axis."""
    at, step = (0, 0), (1, 0) if side == 0 else (0, 1)
    shifts = state["shifts"].clone()
    shifts[side] += 1
    return {
        "sum": pooled(state["sum"], at, step, "sum"),
        "max": pooled(state["max"], at, step, "amax"),
        "count": pooled(state["count"], at, step, "sum"),
        "shifts": shifts,
    }


def standard(resolution: int = 128, k: int = 8) -> tuple[Statistic, ...]:
    """What `see` watches unless told otherwise: every one-pass and per-key statistic, and the overview."""
    return (
        Entropy(),
        EffectiveSpan(),
        Maximum(),
        TopK(k=k),
        RowMass(),
        SinkMass(),
        SpecialMass(),
        MeanDistance(),
        DistanceHistogram(),
        PreviousToken(),
        DuplicateToken(),
        Induction(),
        Received(),
        Overview(resolution=resolution),
    )


CATALOGUE: dict[str, type[Statistic]] = {
    kind.name: kind
    for kind in (
        Entropy,
        EffectiveSpan,
        Maximum,
        TopK,
        RowMass,
        SinkMass,
        SpecialMass,
        MeanDistance,
        DistanceHistogram,
        PreviousToken,
        DuplicateToken,
        Induction,
        Received,
        Overview,
    )
}
