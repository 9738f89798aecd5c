"""Inputs: the tensors of one attention call with their positions; a Tile: a slice of them; Where: a tile's indices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from regard.core.ranges import Ranges

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
