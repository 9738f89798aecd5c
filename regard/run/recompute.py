"""The backward of strips: each strip is computed again, with its graph, when its gradient is wanted.

(Chen 2016, "Training deep nets with sublinear memory cost".) Between forward and backward nothing is kept but the
inputs, and the gradients of all strips are added up in place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from regard.errors import UserError
from regard.evaluate import mixed, weights_of
from regard.inputs import Inputs, Tile
from regard.mechanism import Mechanism
from regard.run.gradients import first_only

Strips = Callable[[], Iterable[tuple[slice, slice, Tensor | None]]]
"""Gives (rows, keys, allowed) of each strip."""


def attend(mechanism: Mechanism, x: Inputs, forward: Callable[[], Tensor], strips: Strips, first: int) -> Tensor:
    """What `forward` gives, the output of the rows from `first` on, with a backward that walks `strips` again."""
    sources = _Sources(mechanism, x)
    call = _Call(sources, forward, strips, first)
    found: Tensor = _Recomputed.apply(call, *sources.tensors())
    return found


@dataclass(frozen=True, eq=False)
class _Sources:
    """What an output depends on: q, k, v, the extras, and the mechanism's own tensors."""

    mechanism: Mechanism
    x: Inputs

    def by_query(self) -> dict[str, Tensor]:
        return {"q": self.x.q, **self.x.per_query}

    def by_key(self) -> dict[str, Tensor]:
        return {"k": self.x.k, **({} if self.x.v is None else {"v": self.x.v}), **self.x.per_key}

    def learned(self) -> list[Tensor]:
        return list({id(t): t for t in self.mechanism.tensors().values()}.values())

    def tensors(self) -> list[Tensor]:
        return [*self.by_query().values(), *self.by_key().values(), *self.learned()]


@dataclass(frozen=True, eq=False)
class _Call:
    sources: _Sources
    forward: Callable[[], Tensor]
    strips: Strips
    first: int


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: _Call, *tensors: Tensor) -> Tensor:
        ctx.call, device = call, tensors[0].device.type
        ctx.autocast = (device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device))
        ctx.save_for_backward(*tensors)
        return call.forward()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors  # raises if one was changed in place since
        totals = [torch.zeros_like(t) if n else None for t, n in zip(tensors, ctx.needs_input_grad[1:], strict=True)]
        device, dtype, enabled = ctx.autocast
        with torch.enable_grad(), torch.autocast(device, dtype=dtype, enabled=enabled):
            _add_up(ctx.call, gradient.detach(), totals)
        return None, *first_only("strips", (*tensors, gradient), *totals)


def _add_up(call: _Call, gradient: Tensor, totals: list[Tensor | None]) -> None:
    """Adds the gradient of every strip to the totals, which stand in the order of the sources."""
    sources, wanted = call.sources, iter(totals)
    by_query, by_key = (
        {name: (t, next(wanted)) for name, t in part.items()} for part in (sources.by_query(), sources.by_key())
    )
    learned = [(t, _leaf(t, total), total) for t, total in zip(sources.learned(), wanted, strict=True)]
    mechanism = _exchanged(sources.mechanism, {id(tensor): leaf for tensor, leaf, _ in learned})
    for rows, keys, allowed in call.strips():
        left, right = _cut(by_query, rows), _cut(by_key, keys)
        tile = _tile(sources.x.tile(rows, keys), left, right)
        out = mixed(mechanism, weights_of(mechanism, tile, allowed), tile)
        pairs = [*left.values(), *right.values(), *((leaf, total) for _, leaf, total in learned)]
        into = [(leaf, total) for leaf, total in pairs if total is not None]
        if not out.requires_grad:
            continue
        _refuse_others(out, {id(leaf) for leaf, _ in into}, mechanism)
        upstream = gradient[:, :, rows.start - call.first : rows.stop - call.first]
        found = torch.autograd.grad(out, [leaf for leaf, _ in into], upstream, allow_unused=True)
        for (_, total), part in zip(into, found, strict=True):
            if part is not None:
                total += part


def _refuse_others(out: Tensor, known: set[int], mechanism: Mechanism) -> None:
    """Raise where a strip depends on a tensor that is no source, whose gradient would be lost without a word."""
    seen, ahead = set(), [out.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None and id(leaf) not in known:
            raise UserError(
                f"{mechanism.name}: a part uses a tensor {list(leaf.shape)} that asks for a gradient and is in none of "
                "its fields; make it a field of the part's dataclass"
            )
        ahead += [other for other, _ in node.next_functions]


Part = tuple[Tensor, Tensor | None]
"""A tensor, and where its gradient is added up, if it is wanted."""


def _cut(whole: dict[str, Part], part: slice) -> dict[str, Part]:
    """Some rows or keys of each tensor, as beginnings of a graph, with the same ones of its gradient."""
    return {
        name: (_leaf(tensor[:, :, part], total), None if total is None else total[:, :, part])
        for name, (tensor, total) in whole.items()
    }


def _leaf(tensor: Tensor, total: Tensor | None) -> Tensor:
    """The same numbers as the beginning of a graph, if their gradient is wanted."""
    return tensor.detach() if total is None else tensor.detach().requires_grad_()


def _tile(tile: Tile, left: dict[str, Part], right: dict[str, Part]) -> Tile:
    """The tile with these tensors in place of its own."""
    return tile.replace(
        q=left["q"][0],
        k=right["k"][0],
        v=right["v"][0] if "v" in right else None,
        per_query={name: left[name][0] for name in tile.per_query},
        per_key={name: right[name][0] for name in tile.per_key},
    )


def _exchanged(record: Any, others: dict[int, Tensor]) -> Any:
    """A record with tensors exchanged for others, by identity, wherever they are held."""
    if isinstance(record, Tensor):
        return others.get(id(record), record)
    if isinstance(record, tuple):
        return tuple(_exchanged(item, others) for item in record)
    if not is_dataclass(record) or isinstance(record, type):
        return record
    before = {f.name: getattr(record, f.name) for f in fields(record)}
    after = {name: _exchanged(item, others) for name, item in before.items()}
    changed = {name: item for name, item in after.items() if item is not before[name] and not _same(item, before[name])}
    return replace(record, **changed) if changed else record


def _same(after: Any, before: Any) -> bool:
    """Whether a tuple was rebuilt of the same items."""
    return isinstance(after, tuple) and all(a is b for a, b in zip(after, before, strict=True))
