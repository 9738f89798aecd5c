"""The Mechanism: what one kind of attention computes, as a composition of small parts.

    x  = prepare(x)                     once per token: project, rotate, hash
    s  = score(q_i, k_j)                terms applied in order, left to right
    s  is defined only where mask(i, j) may attend
    a  = normaliser(s)                  a row of scores -> a row of weights
    a  = adjust(a)                      weights -> weights: dropout, talking heads
    o  = mix(a, v)                      linear in the weights

A part is a frozen record whose call is its meaning, in torch, for a slice (Tile) of the inputs; anyone may write one.
A part that also restates itself in the closed vocabulary of core.py (`core`) runs on the fast backends.

Dimensions, once for the whole project: B batch, H query heads, G key-value heads (H % G == 0), Tq queries, Tk keys,
Dk key width, Dv value width. Dense maths is [B, heads, tokens, width].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from regard import core, ranges
from regard.ranges import Ranges

WeightKind = Literal["distribution", "subunit", "nonnegative", "signed"]


@dataclass(frozen=True, eq=False)
class Where:
    """Where a tile lies: broadcastable int64 index tensors, the only way a part learns it.

    batch [B,1,1,1]; head [1,H,1,1]; query [B,1,Tq,1] and key [B,1,1,Tk] are logical positions, not memory slots.
    """

    batch: Tensor
    head: Tensor
    query: Tensor
    key: Tensor
    layer: int | None = None


@dataclass(frozen=True, eq=False)
class Inputs:
    """One layer, one call, before tiling.

    q [B,H,Tq,Dk], k [B,G,Tk,Dk] (never repeated), v [B,G,Tk,Dv] or None.
    query_positions [B,Tq], key_positions [B,Tk]: int64 logical positions.
    key_valid bool [B,Tk] or None: invalid keys are never read, not even multiplied by zero.
    per_query, per_key: named extras, [B, heads or 1, tokens, …], sliced along with q and k.
    allowed: a mask as data, ANDed with the mechanism's own; None allows all.
    """

    q: Tensor
    k: Tensor
    v: Tensor | None
    query_positions: Tensor
    key_positions: Tensor
    key_valid: Tensor | None = None
    per_query: Mapping[str, Tensor] = field(default_factory=dict)
    per_key: Mapping[str, Tensor] = field(default_factory=dict)
    allowed: Ranges | None = None
    key_axis: Literal["tokens", "slots"] = "tokens"
    layer: int | None = None

    def replace(self, **changes: Any) -> Inputs:
        """The same inputs with some fields exchanged."""
        return replace(self, **changes)

    def tile(self, rows: slice, keys: slice) -> Tile:
        """The part of the inputs that these query rows and key slots need, all heads."""
        where = Where(
            batch=torch.arange(self.q.shape[0], device=self.q.device)[:, None, None, None],
            head=torch.arange(self.q.shape[1], device=self.q.device)[None, :, None, None],
            query=self.query_positions[:, None, rows, None],
            key=self.key_positions[:, None, None, keys],
            layer=self.layer,
        )
        return Tile(
            q=self.q[:, :, rows],
            k=self.k[:, :, keys],
            v=None if self.v is None else self.v[:, :, keys],
            where=where,
            rows=rows,
            keys=keys,
            per_query={name: extra[:, :, rows] for name, extra in self.per_query.items()},
            per_key={name: extra[:, :, keys] for name, extra in self.per_key.items()},
        )


@dataclass(frozen=True, eq=False)
class Tile:
    """A slice of Inputs with all heads of the layer; rows and keys say which memory slots."""

    q: Tensor
    k: Tensor
    v: Tensor | None
    where: Where
    rows: slice
    keys: slice
    per_query: Mapping[str, Tensor]
    per_key: Mapping[str, Tensor]

    def replace(self, **changes: Any) -> Tile:
        """The same tile with some fields exchanged."""
        return replace(self, **changes)


class Prepare(Protocol):
    """Once over the whole call, O(tokens). scope "token" may be applied when a key enters a cache."""

    @property
    def scope(self) -> Literal["token", "sequence"]: ...

    def __call__(self, x: Inputs) -> Inputs: ...


class Score(Protocol):
    """One term. The first of a mechanism receives scores=None. Returns [B,H,Tq,Tk], at least float32, never -inf.

    An optional attribute `scratch_per_pair` (numbers needed per query-key pair, default 1) bounds a strip's rows.
    Any part but a mask or a prepare says with `reads_positions = True` that its answer depends on positions. A term
    whose core form leaves out what is the same for a whole row says `core_shifts_rows = True`.
    """

    def __call__(self, scores: Tensor | None, tile: Tile) -> Tensor: ...


class Mask(Protocol):
    """Whether a query position may attend a key position: bool, broadcast from the indices.

    An optional attribute `reads_positions = False` says that the answer does not depend on where queries are.
    """

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor: ...


class Normaliser(Protocol):
    """Whole rows of scores -> weights. allowed: bool, broadcastable to scores, or None for all allowed.

    Excluded cells get weight 0; a row with nothing allowed gets zeros.
    """

    @property
    def kind(self) -> WeightKind: ...

    def __call__(self, scores: Tensor, allowed: Tensor | None, where: Where) -> Tensor: ...


class Adjust(Protocol):
    """Weights [B,H,Tq,Tk] -> weights [B,H',Tq,Tk]. scope "pair" is elementwise, "heads" mixes all heads.

    Optional attributes: `kind`, what the weights are afterwards; `unwatched = True` for noise of training (dropout):
    such a part acts on the output, and the weights that are shown are those before it.
    """

    @property
    def scope(self) -> Literal["pair", "heads"]: ...

    def __call__(self, weights: Tensor, tile: Tile) -> Tensor: ...


class Mix(Protocol):
    """Weights [B,H',Tq,Tk] and the tile's values -> [B,H',Tq,Dv]. Law: linear in the weights."""

    def __call__(self, weights: Tensor, tile: Tile) -> Tensor: ...


@runtime_checkable
class HasCore(Protocol):
    """A score, normaliser or mix that can restate itself in core records (None: not for these inputs)."""

    def core(self, x: Inputs) -> Any: ...


@runtime_checkable
class Fits(Protocol):
    """A score or normaliser that can tell whether its tensors fit the prepared inputs; raises ValueError if not."""

    def check(self, x: Inputs) -> None: ...


@runtime_checkable
class HasRanges(Protocol):
    """A mask that can state its ranges analytically (None: not for these inputs)."""

    def ranges(self, x: Inputs) -> Ranges | None: ...


@dataclass(frozen=True, eq=False)
class Mechanism:
    """A kind of attention. name: its standard name; source: paper and equation."""

    name: str
    source: str
    score: tuple[Score, ...]
    mask: Mask
    normaliser: Normaliser
    prepare: tuple[Prepare, ...] = ()
    adjust: tuple[Adjust, ...] = ()
    mix: Mix | None = None

    def replace(self, **parts: Any) -> Mechanism:
        """The same mechanism with some parts exchanged."""
        return replace(self, **parts)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that a part holds, by path."""
        return dict(_tensors_of(self, ""))

    def __str__(self) -> str:
        return self.name


def _tensors_of(record: Any, path: str) -> list[tuple[str, Tensor]]:
    if isinstance(record, Tensor):
        return [(path, record)]
    if isinstance(record, tuple):
        return [
            found for i, item in enumerate(record) for found in _tensors_of(item, f"{path}.{i}" if path else str(i))
        ]
    if is_dataclass(record) and not isinstance(record, type):
        parts = [(f.name, getattr(record, f.name)) for f in fields(record)]
        return [found for name, item in parts for found in _tensors_of(item, f"{path}.{name}" if path else name)]
    return []


def prepared(mechanism: Mechanism, x: Inputs) -> Inputs:
    """The inputs after every prepare part, in order; what invalid keys hold is replaced by zeros first."""
    if mechanism.prepare:
        x = without_invalid(x)
    for prepare in mechanism.prepare:
        x = prepare(x)
    for part in (*mechanism.score, mechanism.normaliser, *mechanism.adjust, mechanism.mix):
        if getattr(part, "reads_positions", False):
            require_positions(x, type(part).__name__)
        if isinstance(part, Fits):
            part.check(x)
    return x


def without_invalid(x: Inputs) -> Inputs:
    """The inputs with what invalid slots (padding, stale pages) hold zeroed, NaN included."""
    if x.key_valid is None:
        return x
    keep = x.key_valid[:, None, :, None]
    extras = {
        name: torch.where(x.key_valid.view(x.key_valid.shape[0], 1, -1, *[1] * (extra.ndim - 3)), extra, 0)
        for name, extra in x.per_key.items()
    }
    v = None if x.v is None else torch.where(keep, x.v, 0)
    return x.replace(k=torch.where(keep, x.k, 0), v=v, per_key=extras)


def adjusted(mechanism: Mechanism, weights: Tensor, tile: Tile) -> Tensor:
    """The weights after every adjust but those that are noise of training."""
    for adjust in mechanism.adjust:
        if not getattr(adjust, "unwatched", False):
            weights = adjust(weights, tile)
    return weights


def weights_of(mechanism: Mechanism, tile: Tile, allowed: Tensor | None) -> Tensor:
    """The exact weights [B,H',rows,keys] of whole rows: scores, normaliser, adjusts. allowed: bool, None for all."""
    return adjusted(mechanism, mechanism.normaliser(scores(mechanism, tile), allowed, tile.where), tile)


def mixed(mechanism: Mechanism, weights: Tensor, tile: Tile) -> Tensor:
    """The output of a tile from its adjusted weights, the noise of training applied first. [B,H',Tq,Dv]."""
    assert mechanism.mix is not None
    for adjust in mechanism.adjust:
        if getattr(adjust, "unwatched", False):
            weights = adjust(weights, tile)
    return mechanism.mix(weights, tile)


def weight_kind(mechanism: Mechanism) -> WeightKind:
    """What the weights that are shown are: the last adjust that changes their kind decides, else the normaliser."""
    kind = mechanism.normaliser.kind
    for adjust in mechanism.adjust:
        if not getattr(adjust, "unwatched", False):
            kind = getattr(adjust, "kind", kind)
    return kind


def scores(mechanism: Mechanism, tile: Tile) -> Tensor:
    """All score terms of a tile, applied in order. [B,H,Tq,Tk]."""
    total: Tensor | None = None
    for term in mechanism.score:
        total = term(total, tile)
    if total is None:
        raise ValueError(f"mechanism {mechanism.name!r} has no score term; give at least one, such as Dot()")
    return total


def visible(mechanism: Mechanism, x: Inputs) -> Ranges:
    """What each row may attend, exactly: the mask's ranges, the mask given as data and the valid keys, all ANDed.

    Raises TooManyRuns when a row falls into more intervals than a table may hold.
    """
    seen = ranges_of(mechanism.mask, x)
    if x.allowed is not None:
        seen = x.allowed if seen.is_full() else seen & x.allowed
    if x.key_valid is not None and not bool(x.key_valid.all()):
        seen = seen & ranges.from_key_flags(x.key_valid, seen.num_queries)
    return seen


def ranges_of(mask: Mask, x: Inputs) -> Ranges:
    """A mask's ranges: its own statement where it has one, else encoded from the predicate."""
    found = mask.ranges(x) if isinstance(mask, HasRanges) else None
    return encode_mask(mask, x) if found is None else found


def encode_mask(mask: Mask, x: Inputs) -> Ranges:
    """Ranges of any mask predicate, by evaluating it in strips."""
    if reads_positions(mask):
        require_positions(x, f"the mask {mask}")
    num_queries, num_keys = x.q.shape[2], x.k.shape[2]

    def strip(begin: int, end: int) -> Tensor:
        where = x.tile(slice(begin, end), slice(0, num_keys)).where
        seen = mask(where.batch, where.head, where.query, where.key)
        shape = (*seen.shape[:2], end - begin, num_keys) if seen.ndim == 4 else (1, 1, end - begin, num_keys)
        return seen.expand(shape)

    return ranges.encode(strip, num_queries, num_keys, x.q.shape[0] * x.q.shape[1])


def lower(mechanism: Mechanism, x: Inputs) -> core.Plan | core.Refusal:
    """Restate a mechanism, for prepared inputs, in core records; or say which part cannot and why."""
    if mechanism.adjust:
        return core.Refusal(type(mechanism.adjust[0]).__name__, "changes weights after the normaliser")
    terms: list[core.Term] = []
    for part in mechanism.score:
        found = part.core(x) if isinstance(part, HasCore) else None
        if found is None:
            return core.Refusal(type(part).__name__, "is a score with no form in the core vocabulary")
        terms.extend(found)
    if not terms or not isinstance(terms[0], core.Dot):
        return core.Refusal(mechanism.name, "does not begin with a dot product")
    softmax = mechanism.normaliser.core(x) if isinstance(mechanism.normaliser, HasCore) else None
    if not isinstance(softmax, core.Softmax):
        return core.Refusal(type(mechanism.normaliser).__name__, "is not a softmax")
    shifting = [type(part).__name__ for part in mechanism.score if getattr(part, "core_shifts_rows", False)]
    if shifting and softmax.sink is not None:
        return core.Refusal(shifting[0], "shifts whole rows in its core form, which a softmax with a sink would notice")
    mix = mechanism.mix.core(x) if isinstance(mechanism.mix, HasCore) else None
    if mechanism.mix is not None and not isinstance(mix, core.WeightedSum):
        return core.Refusal(type(mechanism.mix).__name__, "is not a plain weighted sum")
    try:
        seen = visible(mechanism, x)
    except ranges.TooManyRuns as error:
        return core.Refusal(type(mechanism.mask).__name__, str(error))
    if seen.start.shape[3] > ranges.MAX_RUNS:
        return core.Refusal(mechanism.name, f"selects {seen.start.shape[3]} intervals of keys for a row")
    return core.Plan(
        x.q,
        x.k,
        x.v if mechanism.mix is not None else None,
        x.query_positions,
        x.key_positions,
        tuple(terms),
        seen,
        softmax,
    )


def inputs(
    q: Tensor,
    k: Tensor,
    v: Tensor | None = None,
    *,
    query_positions: Tensor | None = None,
    key_positions: Tensor | None = None,
    key_valid: Tensor | None = None,
    allowed: Ranges | None = None,
    per_query: Mapping[str, Tensor] | None = None,
    per_key: Mapping[str, Tensor] | None = None,
    layer: int | None = None,
) -> Inputs:
    """Inputs from plain tensors, checked; positions default to 0 … n-1 where queries and keys are equally many.

    q [B,H,Tq,Dk]; k [B,G,Tk,Dk]; v [B,G,Tk,Dv]. Positions: [T] or [B,T] integers. Raises ValueError on shapes
    that do not fit. Where Tq and Tk differ, key positions default to 0 … Tk-1 and the queries' must be given if any
    part reads them; parts that do not are unaffected.
    """
    _check_shapes(q, k, v)
    batch, num_queries, num_keys = q.shape[0], q.shape[2], k.shape[2]
    if query_positions is None and num_queries != num_keys:
        query_at = torch.full((batch, num_queries), NO_POSITION, device=q.device)
    else:
        query_at = _positions(query_positions, batch, num_queries, "query_positions", q.device)
    key_at = _positions(key_positions, batch, num_keys, "key_positions", q.device)
    if key_valid is not None and (key_valid.shape != (batch, num_keys) or key_valid.dtype != torch.bool):
        raise ValueError(f"key_valid must be bool [{batch}, {num_keys}], got {key_valid.dtype} {list(key_valid.shape)}")
    return Inputs(
        q, k, v, query_at, key_at, key_valid, dict(per_query or {}), dict(per_key or {}), allowed, layer=layer
    )


NO_POSITION = -(1 << 62)  # a token whose position nobody gave; reading it is an error, see `require_positions`


def reads_positions(mask: Mask) -> bool:
    """Whether a mask needs to know the positions of queries and keys."""
    return bool(getattr(mask, "reads_positions", True))


def require_shape(tensor: Tensor, part: str, sizes: tuple[tuple[int, ...], ...], x: Inputs) -> None:
    """Raise unless each dimension of a part's tensor has one of these sizes."""
    if tensor.ndim == len(sizes) and all(size in fit for size, fit in zip(tensor.shape, sizes, strict=True)):
        return
    raise ValueError(
        f"{part} {list(tensor.shape)} does not fit {x.q.shape[0]} sequences, {x.q.shape[1]} heads, "
        f"{x.q.shape[2]} queries and {x.k.shape[2]} keys; see its documentation for the shape"
    )


def require_positions(x: Inputs, part: str) -> None:
    """Raise unless the positions of queries and keys are known."""
    if x.key_axis == "slots" and x.key_positions.numel() and int(x.key_positions.flatten()[0]) == NO_POSITION:
        raise ValueError(
            f"{part} reads positions, and the keys here are slots, not tokens of the sequence: they have none; "
            "use full, or a mechanism whose keys are tokens"
        )
    if x.query_positions.numel() and int(x.query_positions.flatten()[0]) == NO_POSITION:
        raise ValueError(
            f"{part} reads positions, and {x.q.shape[2]} queries on {x.k.shape[2]} keys do not say theirs: "
            "give query_positions (and key_positions if they are not 0 … n-1)"
        )


def _check_shapes(q: Tensor, k: Tensor, v: Tensor | None) -> None:
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        if tensor is not None and tensor.ndim != 4:
            raise ValueError(
                f"{name} must be [batch, heads, tokens, width], got {tensor.ndim} dimensions {list(tensor.shape)}"
            )
    if q.shape[0] != k.shape[0] or (v is not None and k.shape[:3] != v.shape[:3]):
        shapes = f"q {list(q.shape)}, k {list(k.shape)}, v {list(v.shape) if v is not None else None}"
        raise ValueError(f"batch, key-value heads and key count must agree: {shapes}")
    if k.shape[1] == 0 or q.shape[1] % k.shape[1]:
        raise ValueError(f"{q.shape[1]} query heads do not divide over {k.shape[1]} key-value heads")


def _positions(given: Tensor | None, batch: int, length: int, name: str, device: torch.device) -> Tensor:
    if given is None:
        return torch.arange(length, device=device).expand(batch, length)
    if given.is_floating_point() or given.shape not in ((length,), (1, length), (batch, length)):
        raise ValueError(
            f"{name} must be integers [{length}] or [{batch}, {length}], got {given.dtype} {list(given.shape)}"
        )
    return given.to(device=device, dtype=torch.int64).expand(batch, length)
