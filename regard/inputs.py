"""Inputs: the tensors of one attention call with their positions; a Tile: a slice of them; Where: a tile's indices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from regard.core.layout import DENSE, Layout, Packed, Paged
from regard.core.ranges import Ranges
from regard.errors import UserError

PAGE_TYPES = (torch.float32, torch.bfloat16, torch.float16)
NO_POSITION = -(1 << 62)  # a token whose position nobody gave; reading it is an error, see `require_positions`


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
    packed: the layout of documents side by side or in pages (core/layout.py), None for dense tensors. There the batch
    is 1 and the tokens are those of all documents, their positions and allowed ranges each document's own; in a paged
    layout k and v are the pages.
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
    packed: Packed | None = None

    @property
    def layout(self) -> Layout:
        """How the tokens lie."""
        return DENSE if self.packed is None else self.packed  # type: ignore[return-value]

    @property
    def num_keys(self) -> int:
        """Tk: keys of the call; in a packed layout those of all documents."""
        return self.layout.keys[-1] if isinstance(self.layout, Paged) else self.k.shape[2]

    @property
    def longest_key_axis(self) -> int:
        """The length of a row of scores: Tk, or in a packed layout the keys of the longest document."""
        return self.layout.longest_key if isinstance(self.layout, Packed) else self.k.shape[2]

    @property
    def key_width(self) -> int:
        """Dk of the keys."""
        return self.k.shape[2] if isinstance(self.layout, Paged) else self.k.shape[3]

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

    q [B,H,Tq,Dk]; k [B,G,Tk,Dk]; v [B,G,Tk,Dv]. Positions: [T] or [B,T] integers. Raises UserError on shapes
    that do not fit. Where Tq and Tk differ, key positions default to 0 … Tk-1 and the queries' must be given if any
    part reads them; parts that do not are unaffected.
    """
    _check_shapes(q, k, v, 4, "[batch, heads, tokens, width]")
    if q.shape[0] != k.shape[0] or (v is not None and k.shape[:3] != v.shape[:3]):
        shapes = f"q {list(q.shape)}, k {list(k.shape)}, v {list(v.shape) if v is not None else None}"
        raise UserError(f"batch, key-value heads and key count must agree: {shapes}")
    batch, num_queries, num_keys = q.shape[0], q.shape[2], k.shape[2]
    if query_positions is None and num_queries != num_keys:
        query_at = torch.full((batch, num_queries), NO_POSITION, device=q.device)
    else:
        query_at = _positions(query_positions, batch, num_queries, "query_positions", q.device)
    key_at = _positions(key_positions, batch, num_keys, "key_positions", q.device)
    if key_valid is not None and (key_valid.shape != (batch, num_keys) or key_valid.dtype != torch.bool):
        raise UserError(f"key_valid must be bool [{batch}, {num_keys}], got {key_valid.dtype} {list(key_valid.shape)}")
    return Inputs(
        q, k, v, query_at, key_at, key_valid, dict(per_query or {}), dict(per_key or {}), allowed, layer=layer
    )


def packed_inputs(
    q: Tensor,
    k: Tensor,
    v: Tensor | None,
    layout: Layout,
    *,
    allowed: Ranges | None = None,
    per_query: Mapping[str, Tensor] | None = None,
    per_key: Mapping[str, Tensor] | None = None,
    layer: int | None = None,
) -> Inputs:
    """Inputs of a packed layout: q [queries, H, Dk]; k [keys, G, Dk] and v [keys, G, Dv] side by side, or the pages.

    allowed: [1, H or 1, queries, R] in each document's own key slots. Raises UserError on shapes that do not fit.
    """
    if not isinstance(layout, Packed):
        raise UserError("packed_inputs takes a Ragged or Paged layout; for dense tensors use inputs")
    if isinstance(layout, Paged):
        _check_pages(q, k, v, layout)
    else:
        _check_shapes(q, k, v, 3, "[tokens, heads, width] in a packed layout")
        if (q.shape[0], k.shape[0]) != (layout.queries[-1], layout.keys[-1]):
            raise UserError(
                f"the layout holds {layout.queries[-1]} queries and {layout.keys[-1]} keys, the tensors "
                f"{q.shape[0]} and {k.shape[0]}"
            )
        if v is not None and k.shape[:2] != v.shape[:2]:
            raise UserError(f"keys {list(k.shape)} and values {list(v.shape)} must have the same tokens and heads")
        k, v = k.transpose(0, 1)[None], None if v is None else v.transpose(0, 1)[None]
    return Inputs(
        q.transpose(0, 1)[None],
        k,
        v,
        layout.query_positions,
        layout.key_positions,
        per_query=dict(per_query or {}),
        per_key=dict(per_key or {}),
        allowed=allowed,
        layer=layer,
        packed=layout,
    )


def check_pages(key_pages: Tensor, value_pages: Tensor) -> None:
    """Raise UserError unless key_pages [pages,G,Dk,size] and value_pages [pages,G,size,Dv] belong together."""
    for name, pages in (("key_pages", key_pages), ("value_pages", value_pages)):
        if pages.dtype not in PAGE_TYPES or not pages.is_contiguous() or pages.ndim != 4:
            raise UserError(
                f"{name} must be contiguous float32, bfloat16 or float16 with 4 dimensions, got {pages.dtype} "
                f"{list(pages.shape)}"
            )
    if key_pages.dtype != value_pages.dtype:
        raise UserError(f"key pages are {key_pages.dtype} and value pages {value_pages.dtype}; they must agree")
    if key_pages.shape[:2] != value_pages.shape[:2] or key_pages.shape[3] != value_pages.shape[2]:
        raise UserError(
            f"key pages [pages, G, Dk, size] {list(key_pages.shape)} and value pages [pages, G, size, Dv] "
            f"{list(value_pages.shape)} do not belong together"
        )


def _check_pages(q: Tensor, key_pages: Tensor, value_pages: Tensor | None, layout: Paged) -> None:
    if value_pages is None:
        raise UserError("a paged layout needs key pages and value pages; give both")
    check_pages(key_pages, value_pages)
    num_pages, groups, width, size = key_pages.shape
    tokens = layout.queries[-1]
    if q.ndim != 3 or q.shape[2] != width or groups == 0 or q.shape[1] % groups or q.shape[0] != tokens:
        raise UserError(
            f"q must be [{tokens} new tokens, heads, {width}] with heads a multiple of {groups}, got {list(q.shape)}"
        )
    if layout.page_size != size:
        raise UserError(f"the layout has pages of {layout.page_size} tokens, the pages hold {size}")
    if layout.table.shape[1] not in (1, groups):
        raise UserError(f"block_table has {layout.table.shape[1]} heads, the pages {groups} key-value heads")
    layout.check_table(num_pages)


def require_shape(tensor: Tensor, part: str, sizes: tuple[tuple[int, ...], ...], x: Inputs) -> None:
    """Raise unless each dimension of a part's tensor has one of these sizes."""
    if tensor.ndim == len(sizes) and all(size in fit for size, fit in zip(tensor.shape, sizes, strict=True)):
        return
    raise UserError(
        f"{part} {list(tensor.shape)} does not fit {x.q.shape[0]} sequences, {x.q.shape[1]} heads, "
        f"{x.q.shape[2]} queries and {x.num_keys} keys; see its documentation for the shape"
    )


def require_positions(x: Inputs, part: str) -> None:
    """Raise unless the positions of queries and keys are known."""
    if x.key_axis == "slots" and x.key_positions.numel() and int(x.key_positions.flatten()[0]) == NO_POSITION:
        raise UserError(
            f"{part} reads positions, and the keys here are slots, not tokens of the sequence: they have none; "
            "use full, or a mechanism whose keys are tokens"
        )
    if x.query_positions.numel() and int(x.query_positions.flatten()[0]) == NO_POSITION:
        raise UserError(
            f"{part} reads positions, and {x.q.shape[2]} queries on {x.num_keys} keys do not say theirs: "
            "give query_positions (and key_positions if they are not 0 … n-1)"
        )


def _check_shapes(q: Tensor, k: Tensor, v: Tensor | None, dimensions: int, shape: str) -> None:
    for name, tensor in (("q", q), ("k", k), ("v", v)):
        if tensor is not None and tensor.ndim != dimensions:
            raise UserError(f"{name} must be {shape}, got {tensor.ndim} dimensions {list(tensor.shape)}")
    if k.shape[1] == 0 or q.shape[1] % k.shape[1]:
        raise UserError(f"{q.shape[1]} query heads do not divide over {k.shape[1]} key-value heads")


def _positions(given: Tensor | None, batch: int, length: int, name: str, device: torch.device) -> Tensor:
    if given is None:
        return torch.arange(length, device=device).expand(batch, length)
    if given.is_floating_point() or given.shape not in ((length,), (1, length), (batch, length)):
        raise UserError(
            f"{name} must be integers [{length}] or [{batch}, {length}], got {given.dtype} {list(given.shape)}"
        )
    return given.to(device=device, dtype=torch.int64).expand(batch, length)
