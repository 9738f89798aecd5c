"""Strips: any mechanism, exactly, without the n × n matrix.

A strip is a block of query rows against all keys that they may see, all heads together. Its scores, weights and
output exist only while it is walked, so memory is rows · keys · heads for a bounded number of rows. The backward
recomputes each strip (recompute.py), so it is linear in memory too.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from regard.core import ranges
from regard.core.layout import Packed
from regard.core.ranges import Ranges
from regard.errors import UserError
from regard.evaluate import mixed, prepared, weights_of
from regard.inputs import Inputs, Tile, without_invalid
from regard.lower import visible
from regard.mechanism import Mechanism
from regard.run import recompute
from regard.run.backend import Absorb, Backend, Composition
from regard.run.documents import dense_inputs
from regard.run.output import Output

STRIP_BYTES = 32 << 20


def attend(
    mechanism: Mechanism,
    x: Inputs,
    *,
    output: bool = True,
    absorb: Absorb | None = None,
    rows: slice | None = None,
    strip_bytes: int = STRIP_BYTES,
) -> Tensor | None:
    """Output [B,H',rows,Dv] in the query's type (None if not asked for), showing each strip's weights to `absorb`.

    rows: which queries to compute, by default all.
    """
    given = x.q.dtype
    x = without_invalid(prepared(mechanism, x))
    if output and mechanism.mix is None:
        raise UserError(f"{mechanism.name} has no output: its weights are the result; ask for regard.weights")
    first, last, _ = (rows or slice(None)).indices(x.q.shape[2])
    queries = range(first, max(first, last))
    if not output:
        for _ in _walked(mechanism, x, queries, strip_bytes, absorb):
            pass
        return None
    if torch.is_grad_enabled() and requires_grad(mechanism, x):
        return recompute.attend(
            mechanism,
            x,
            lambda: _joined(mechanism, x, queries, strip_bytes, absorb),
            lambda: strips(mechanism, x, queries, strip_bytes),
            first,
        ).to(given)
    return _joined(mechanism, x, queries, strip_bytes, absorb).to(given)


def _walked(
    mechanism: Mechanism, x: Inputs, queries: range, strip_bytes: int, absorb: Absorb | None
) -> Iterator[tuple[slice, Tile, Tensor]]:
    """Each strip's rows, tile and weights, shown to `absorb` first."""
    for rows, keys, allowed in strips(mechanism, x, queries, strip_bytes):
        tile = x.tile(rows, keys)
        weights = weights_of(mechanism, tile, allowed)
        if absorb is not None:
            absorb(rows, keys, weights.detach(), allowed)
        yield rows, tile, weights


@torch.no_grad()
def _joined(mechanism: Mechanism, x: Inputs, queries: range, strip_bytes: int, absorb: Absorb | None) -> Tensor:
    """The outputs of all strips [B,H',rows,Dv].

    Each is copied to its place at once. Kept until the end they would be small blocks among the large ones that strips
    take and give back, which an allocator then cannot use again: memory would grow with every strip.
    """
    whole: Tensor | None = None
    for rows, tile, weights in _walked(mechanism, x, queries, strip_bytes, absorb):
        part = mixed(mechanism, weights, tile)
        if whole is None:
            whole = part.new_empty(*part.shape[:2], len(queries), part.shape[3])
        whole[:, :, rows.start - queries.start : rows.stop - queries.start] = part
    if whole is not None:
        return whole
    nothing = x.tile(slice(0, 0), slice(0, 0))
    return mixed(mechanism, weights_of(mechanism, nothing, None), nothing)


def strips(
    mechanism: Mechanism, x: Inputs, queries: range, strip_bytes: int = STRIP_BYTES
) -> Iterator[tuple[slice, slice, Tensor | None]]:
    """(rows, keys, allowed) of each strip: the keys are the hull of what its rows see; allowed None means all."""
    num_keys = x.k.shape[2]
    try:
        seen: Ranges | None = visible(mechanism, x)
    except ranges.TooManyRuns:
        seen = None
    per_pair = max([1, *(getattr(term, "scratch_per_pair", 1) for term in mechanism.score)])
    row_bytes = 4 * x.q.shape[0] * x.q.shape[1] * num_keys * per_pair
    count = max(1, strip_bytes // max(1, row_bytes))
    for begin in range(queries.start, queries.stop, count):
        rows = slice(begin, min(begin + count, queries.stop))
        if seen is None:
            yield rows, slice(0, num_keys), _predicate(mechanism, x, rows)
            continue
        some = seen.rows(rows.start, rows.stop)
        keys = slice(*some.hull())
        all_seen = bool(((some.start[..., 0] == keys.start) & (some.stop[..., 0] == keys.stop)).all())
        yield rows, keys, None if all_seen else some.dense(keys.start, keys.stop)


@torch.no_grad()
def rectangle(mechanism: Mechanism, x: Inputs, rows: slice, keys: slice) -> Tensor:
    """The weights [B,H',rows,keys] of these query rows on these key slots, as they are after the prepares.

    Raises UserError for a slice with a step.
    """
    for part in (rows, keys):
        if part.step not in (None, 1):
            raise UserError(
                f"a rectangle is whole rows and keys, got a step of {part.step}; index what it gives instead"
            )
    x, mechanism = prepared(mechanism, x), mechanism.replace(prepare=())
    first_row, last_row, _ = rows.indices(x.q.shape[2])
    first_key, last_key, _ = keys.indices(x.k.shape[2])
    pieces: list[Tensor] = []

    def absorb(strip: slice, at: slice, weights: Tensor, _: Tensor | None) -> None:
        cells = weights.new_zeros((*weights.shape[:3], max(0, last_key - first_key)))
        left, right = max(first_key, at.start), min(last_key, at.stop)
        if left < right:
            cells[..., left - first_key : right - first_key] = weights[..., left - at.start : right - at.start]
        pieces.append(cells)

    attend(mechanism, x, output=False, absorb=absorb, rows=slice(first_row, last_row))
    if not pieces:
        nothing = weights_of(mechanism, x.tile(slice(0, 0), slice(0, 0)), None)
        return nothing.new_zeros((*nothing.shape[:3], max(0, last_key - first_key)))
    return torch.cat(pieces, 2)


def _predicate(mechanism: Mechanism, x: Inputs, rows: slice) -> Tensor:
    """The mask of a strip by its predicate, for masks that no range table holds."""
    where = x.tile(rows, slice(0, x.k.shape[2])).where
    allowed = mechanism.mask(where.batch, where.head, where.query, where.key)
    if x.allowed is not None:
        allowed = allowed & x.allowed.rows(rows.start, rows.stop).dense()
    return allowed if x.key_valid is None else allowed & x.key_valid[:, None, None, :]


def requires_grad(mechanism: Mechanism, x: Inputs) -> bool:
    """Whether anything that the output depends on, the mechanism's own tensors included, asks for a gradient."""
    tensors = [x.q, x.k, x.v, *x.per_query.values(), *x.per_key.values(), *mechanism.tensors().values()]
    return any(t.requires_grad for t in tensors if t is not None)


def walk(call: Composition, absorb: Absorb | None, output: bool) -> Output:
    """One pass over a call, its weights shown to `absorb`; a packed one a document at a time."""
    mechanism, x = call.mechanism, call.x
    if not isinstance(x.layout, Packed):
        return Output(attend(mechanism, x, output=output, absorb=absorb))
    parts = []
    for rows, keys, document in dense_inputs(x):
        shown = None if absorb is None else _moved(absorb, rows.start, keys.start)
        parts.append(attend(mechanism, document, output=output, absorb=shown))
    if not output:
        return Output(None)
    outs = [part for part in parts if part is not None]
    return Output(torch.cat(outs, 2) if outs else x.q.new_zeros(*x.q.shape[:3], 0 if x.v is None else x.v.shape[-1]))


def _moved(absorb: Absorb, first_row: int, first_key: int) -> Absorb:
    """The same, counting rows and keys from others."""

    def shown(rows: slice, keys: slice, weights: Tensor, allowed: Tensor | None) -> None:
        moved = (
            slice(rows.start + first_row, rows.stop + first_row),
            slice(keys.start + first_key, keys.stop + first_key),
        )
        absorb(*moved, weights, allowed)

    return shown


STRIPS = Backend("strips", "everything in torch, rows by rows, without an n × n matrix", (), walk, closed=False)
