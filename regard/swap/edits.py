"""Edits: what would the model say if this head were off, if these tokens did not see those, if it looked elsewhere?

    with regard.attach(model, edit=[off([(2, 1)]), cut(queries=slice(10, None), keys=[3, 4])]) as trace: …

An edit is a record that `regard.attach` applies to every call while its block runs, watched like everything else. What
an edit does not change keeps its bits: an edge that the mask excludes anyway cannot be cut. Positions count the tokens
of the sequence so far, padding included. What is hidden from a row is gone before its softmax: the rest sums to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from regard.core.ranges import Ranges
from regard.hf.calls import Call
from regard.hf.errors import Unsupported
from regard.hf.layers import LayerId
from regard.inputs import Tile, Where
from regard.mechanism import Mechanism, WeightKind
from regard.parts.masks import Full
from regard.parts.mixes import WeightedSum
from regard.parts.normalisers import Softmax
from regard.parts.scores import Dot
from regard.seeing.trace import Trace

Heads = Sequence[tuple[int, int]]
"""Heads as (layer, head)."""


@dataclass(frozen=True, eq=False)
class Selected:
    """Which attention an edit is about.

    heads: (layer, head) of each, None for all. layers: whole layers, None for all. kind: self-attention or cross.
    stack: "encoder", "decoder" …, None for every stack with such a layer.
    """

    heads: tuple[tuple[int, int], ...] | None = None
    layers: frozenset[int] | None = None
    kind: Literal["self", "cross"] = "self"
    stack: str | None = None

    @property
    def named_layers(self) -> list[int]:
        return sorted({layer for layer, _ in self.heads or ()} | (self.layers or frozenset()))

    def of(self, layer: LayerId, num_heads: int) -> list[int]:
        """The heads of a layer that are meant. Raises Unsupported for one that is not there."""
        if layer.kind != self.kind or self.stack not in (None, layer.stack):
            return []
        if self.heads is None:
            return list(range(num_heads)) if self.layers is None or layer.index in self.layers else []
        found = [head for at, head in self.heads if at == layer.index]
        outside = [head for head in found if not 0 <= head < num_heads]
        if outside:
            raise Unsupported(f"layer {layer.name} has heads 0 to {num_heads - 1}; head {outside[0]} was to be edited")
        return found

    def hides(self, layer: LayerId, call: Call, rows: slice) -> Ranges | None:
        """Nothing, unless an edit says otherwise."""
        return None

    def replaces(self, layer: LayerId, heads: Sequence[int]) -> frozenset[int]:
        """No pattern, unless an edit says otherwise."""
        return frozenset()

    def pattern(self, call: Call, heads: Sequence[int], rows: slice) -> Mechanism:
        raise AssertionError("an edit that replaces nothing has no pattern")


@dataclass(frozen=True, eq=False)
class Off(Selected):
    """Heads whose output is zero: they see nothing."""

    def hides(self, layer: LayerId, call: Call, rows: slice) -> Ranges | None:
        heads = self.of(layer, call.q.shape[1])
        if not heads:
            return None
        return _shown(call, heads, torch.ones(call.q.shape[2], dtype=torch.bool), [])

    def __str__(self) -> str:
        return f"off {_said(self)}"


@dataclass(frozen=True, eq=False)
class Cut(Selected):
    """Edges that are gone: the rows of `queries` may not see `keys`. Both are tokens by position, None for all."""

    queries: slice | tuple[int, ...] | None = None
    keys: slice | tuple[int, ...] | None = None

    def hides(self, layer: LayerId, call: Call, rows: slice) -> Ranges | None:
        heads = self.of(layer, call.q.shape[1])
        at_query = _flags(self.queries, rows.stop)[rows]
        if not heads or not bool(at_query.any()):
            return None
        hidden = _flags(self.keys, call.first_key + call.k.shape[2])[call.first_key :]
        return _shown(call, heads, at_query, _runs(~hidden))

    def __str__(self) -> str:
        return f"cut {_said(self)}: queries {self.queries}, keys {self.keys}"


@dataclass(frozen=True, eq=False)
class Uniform(Selected):
    """Heads that weigh all that they may see alike."""

    def replaces(self, layer: LayerId, heads: Sequence[int]) -> frozenset[int]:
        return frozenset(self.of(layer, len(heads)))

    def pattern(self, call: Call, heads: Sequence[int], rows: slice) -> Mechanism:
        return _plain("uniform", Dot(0.0), Softmax())

    def __str__(self) -> str:
        return f"uniform {_said(self)}"


@dataclass(frozen=True, eq=False)
class Pattern(Selected):
    """Heads of one layer that weigh as they are told: weights [len(heads), T, T]; what the mask excludes is 0."""

    weights: Tensor | None = None

    def replaces(self, layer: LayerId, heads: Sequence[int]) -> frozenset[int]:
        return frozenset(self.of(layer, len(heads)))

    def pattern(self, call: Call, heads: Sequence[int], rows: slice) -> Mechanism:
        assert self.weights is not None and self.heads is not None
        size = self.weights.shape[1]
        if rows.stop > size or call.first_key + call.k.shape[2] > size:
            raise Unsupported(f"the pattern has {size} tokens, and token {rows.stop - 1} is computed; give more rows")
        places = {head: number for number, (_, head) in enumerate(self.heads)}
        at = [places[head] for head in heads]
        keys = slice(call.first_key, call.first_key + call.k.shape[2])
        return _plain("given pattern", Given(self.weights[at][None, :, rows, keys].to(call.q.device)), AsGiven())

    def __str__(self) -> str:
        return f"pattern {_said(self)}"


def off(heads: Heads, *, kind: Literal["self", "cross"] = "self", stack: str | None = None) -> Off:
    """Switch heads off: their output is zero. heads: (layer, head) of each."""
    return Off(_heads(heads), None, kind, stack)


def cut(
    queries: slice | Sequence[int] | None = None,
    keys: slice | Sequence[int] | None = None,
    *,
    heads: Heads | None = None,
    layers: Sequence[int] | None = None,
    kind: Literal["self", "cross"] = "self",
    stack: str | None = None,
) -> Cut:
    """Let queries not see keys, in these heads or layers, by default everywhere. None: all queries, all keys."""
    where = None if layers is None else frozenset(layers)
    return Cut(None if heads is None else _heads(heads), where, kind, stack, _tokens(queries), _tokens(keys))


def uniform(heads: Heads, *, kind: Literal["self", "cross"] = "self", stack: str | None = None) -> Uniform:
    """Replace the pattern of heads by equal weights over all that each row may see."""
    return Uniform(_heads(heads), None, kind, stack)


def pattern(heads: Heads, weights: Tensor | Trace, **more: str) -> list[Pattern]:
    """Replace the pattern of heads by weights [len(heads), T, T], or by those of another run: a Trace with these heads.

    One edit for each layer.
    """
    if isinstance(weights, Trace):
        weights = torch.stack([weights.weights(layer, head) for layer, head in heads])
    if weights.ndim != 3 or weights.shape[0] != len(heads) or weights.shape[1] != weights.shape[2]:
        raise Unsupported(
            f"weights of {len(heads)} heads are [{len(heads)}, tokens, tokens], not {list(weights.shape)}"
        )
    found = []
    for layer in sorted({layer for layer, _ in heads}):
        at = [n for n, (of, _) in enumerate(heads) if of == layer]
        found.append(Pattern(_heads([heads[n] for n in at]), None, weights=weights[at], **more))  # type: ignore[arg-type]
    return found


# ---- parts ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Given:
    """A score that is a weight already: weights [1, heads, rows, keys] of a call."""

    weights: Tensor

    def __call__(self, scores: Tensor | None, tile: Tile) -> Tensor:
        part = self.weights[:, :, tile.rows, tile.keys]
        return part.expand(tile.q.shape[0], -1, -1, -1).to(torch.promote_types(tile.q.dtype, torch.float32))


@dataclass(frozen=True, eq=False)
class AsGiven:
    """Weights as they were given, 0 where a key is excluded."""

    @property
    def kind(self) -> WeightKind:
        return "nonnegative"

    def __call__(self, scores: Tensor, allowed: Tensor | None, where: Where) -> Tensor:
        return scores if allowed is None else scores.masked_fill(~allowed, 0.0)


def _plain(name: str, score: Dot | Given, normaliser: Softmax | AsGiven) -> Mechanism:
    return Mechanism(name, "an edit", (score,), Full(), normaliser, mix=WeightedSum())


# ---- what is shown --------------------------------------------------------------------------------------------------


def _shown(call: Call, heads: list[int], rows: Tensor, runs: list[tuple[int, int]]) -> Ranges:
    """Ranges in which these heads' rows (bool [Tq]) see the keys of `runs` alone, all else everything."""
    num_heads, count, keys = call.q.shape[1], call.q.shape[2], call.k.shape[2]
    at = torch.tensor(heads, device=call.q.device)
    edited = torch.zeros(num_heads, count, dtype=torch.bool, device=call.q.device)
    edited[at] = rows.to(call.q.device)
    if bool((edited == edited[:1]).all()):
        edited = edited[:1]
    start = torch.full((*edited.shape, max(len(runs), 1)), keys, dtype=torch.int32, device=call.q.device)
    stop = start.clone()
    start[..., 0].masked_fill_(~edited, 0)  # all other rows see everything: [0, keys) and nothing more
    for number, (first, last) in enumerate(runs):
        start[..., number].masked_fill_(edited, first)
        stop[..., number].masked_fill_(edited, last)
    return Ranges(start[None], stop[None], keys)


def _flags(tokens: slice | tuple[int, ...] | None, count: int) -> Tensor:
    """bool [count]: which tokens are named."""
    flags = torch.zeros(count, dtype=torch.bool)
    if tokens is None or isinstance(tokens, slice):
        flags[tokens or slice(None)] = True
    else:
        flags[[token for token in tokens if token < count]] = True
    return flags


def _runs(flags: Tensor) -> list[tuple[int, int]]:
    """The intervals of flagged places."""
    edges = torch.nn.functional.pad(flags.int(), (1, 1)).diff().nonzero()[:, 0].tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


def _heads(heads: Heads) -> tuple[tuple[int, int], ...]:
    found = tuple((int(layer), int(head)) for layer, head in heads)
    if not found or min(min(pair) for pair in found) < 0:
        raise Unsupported(f"heads are pairs (layer, head) from 0, at least one, not {list(heads)!r}")
    return found


def _tokens(given: slice | Sequence[int] | None) -> slice | tuple[int, ...] | None:
    if given is None or (isinstance(given, slice) and all(n is None or n >= 0 for n in (given.start, given.stop))):
        return given
    if isinstance(given, slice) or any(token < 0 for token in given):
        raise Unsupported(f"tokens are positions from 0 of the sequence, not {given!r}; it grows while a model writes")
    return tuple(given)


def _said(selected: Selected) -> str:
    if selected.heads is not None:
        return ", ".join(f"{layer}.{head}" for layer, head in selected.heads)
    return "everywhere" if selected.layers is None else f"layers {sorted(selected.layers)}"
