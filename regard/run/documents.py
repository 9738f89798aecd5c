"""A packed call as dense ones, a document at a time, for what computes dense tensors; pages are gathered."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from regard import core
from regard.core.layout import DENSE, Packed, Paged
from regard.core.ranges import Ranges
from regard.inputs import Inputs


def beside(layout: Packed, k: Tensor, v: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Keys [1,G,Tk,Dk] and values of all documents side by side; out of pages they are copied."""
    if not isinstance(layout, Paged):
        return k, v
    pages, slots = layout.slots
    heads = torch.arange(k.shape[1], device=k.device)[:, None]
    pages = pages.to(k.device).expand(k.shape[1], -1)
    slots = slots.to(k.device)
    values = None if v is None else v[pages, heads, slots]
    return k[pages, heads, :, slots][None], None if values is None else values[None]


def dense_inputs(x: Inputs) -> Iterator[tuple[slice, slice, Inputs]]:
    """(rows, keys, inputs) of each document that has queries; rows and keys count the tokens of all."""
    layout = x.layout
    assert isinstance(layout, Packed)
    k, v = beside(layout, x.k, x.v)
    for rows, keys in _extents(layout):
        yield (
            rows,
            keys,
            x.replace(
                q=x.q[:, :, rows],
                k=k[:, :, keys],
                v=None if v is None else v[:, :, keys],
                query_positions=x.query_positions[:, rows],
                key_positions=x.key_positions[:, keys],
                per_query={name: extra[:, :, rows] for name, extra in x.per_query.items()},
                per_key={name: extra[:, :, keys] for name, extra in x.per_key.items()},
                allowed=None if x.allowed is None else _own(x.allowed, rows, keys),
                packed=None,
            ),
        )


def dense_plans(plan: core.Plan) -> Iterator[tuple[slice, core.Plan]]:
    """(rows, plan) of each document that has queries."""
    layout = plan.layout
    assert isinstance(layout, Packed)
    k, v = beside(layout, plan.k, plan.v)
    for rows, keys in _extents(layout):
        yield (
            rows,
            replace(
                plan,
                q=plan.q[:, :, rows],
                k=k[:, :, keys],
                v=None if v is None else v[:, :, keys],
                query_positions=plan.query_positions[:, rows],
                key_positions=plan.key_positions[:, keys],
                terms=tuple(_term(term, rows, keys) for term in plan.terms),
                ranges=_own(plan.ranges, rows, keys),
                layout=DENSE,
            ),
        )


def _extents(layout: Packed) -> Iterator[tuple[slice, slice]]:
    for a, b, c, d in zip(layout.queries, layout.queries[1:], layout.keys, layout.keys[1:]):
        if b > a:
            yield slice(a, b), slice(c, d)


def _own(ranges: Ranges, rows: slice, keys: slice) -> Ranges:
    part = ranges.rows(rows.start, rows.stop)
    return Ranges(part.start, part.stop, keys.stop - keys.start)


def _term(term: core.Term, rows: slice, keys: slice) -> core.Term:
    if isinstance(term, core.KeyBias):
        return core.KeyBias(term.bias[:, :, keys])
    if isinstance(term, core.Table):
        own_rows = rows if term.bias.shape[2] > 1 else slice(None)
        return core.Table(term.bias[:, :, own_rows, : keys.stop - keys.start])
    return term
