"""A − B of two open Traces, cell by cell at any length: tiles, rows and columns, computed when they are asked for.

Slots of the difference are the tokens that both have (regard.view.aligned), so a word more in one shifts nothing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from regard.seeing.trace import Layer, Trace
from regard.view.aligned import Slots, matched
from regard.view.arrays import Shelf
from regard.view.difference import _by_token, _said, most_changed, same_cells, subtracted
from regard.view.pyramid import Tile, TileAsk, tile_tokens
from regard.view.scene import Scene, _axis, _layer, _statistics
from regard.view.served import SMALL

BAND = 256  # rows whose weights are computed at once


class Minus(Trace):
    """The Trace of A − B that computes its weights from both. slots: those of A and of B by axis."""

    of: tuple[Trace, Trace]
    slots: tuple[Slots, Slots]
    why: str | None

    @staticmethod
    def between(a: Trace, b: Trace) -> Minus | None:
        """None where layers or heads differ, or tokens are not equally many and cannot be aligned."""
        if same_cells(a, b):
            whole: Slots = {name: list(range(tokens.axis.length)) for name, tokens in a.axes.items()}
            return Minus._joined(subtracted(a, b), (a, b), (whole, whole), None)
        both = _by_token(a, b, 0)
        if both is None or matched(a, b) is None:
            return None
        return Minus._joined(subtracted(*both[:2]), (a, b), both[2], _said(a, b, both[0]))

    @staticmethod
    def _joined(minus: Trace, of: tuple[Trace, Trace], slots: tuple[Slots, Slots], why: str | None) -> Minus:
        made = Minus(minus.model, minus.layers, minus.axes, minus.statistics, minus.made)
        made.of, made.slots, made.why = of, slots, why
        return made

    def weights(  # type: ignore[override]
        self, layer: Layer, head: int, rows: slice = slice(None), keys: slice = slice(None), *, batch: int = 0
    ) -> Tensor:
        """The difference of the exact weights of a rectangle, float32 [rows, keys]."""
        a, b = (self._side(n, layer, head, rows, keys, batch) for n in (0, 1))
        return a - b

    def _side(self, n: int, layer: Layer, head: int, rows: slice, keys: slice, batch: int) -> Tensor:
        its, slots = self.of[n], self.slots[n]
        place = next(at for at, each in enumerate(self.layers) if each is layer)
        at_rows, at_keys = slots[layer.query_axis][rows], slots[layer.key_axis][keys]
        if not at_rows or not at_keys:
            return torch.zeros(len(at_rows), len(at_keys))
        spans = [slice(min(at), max(at) + 1) for at in (at_rows, at_keys)]
        found = its.weights(its.layers[place], head, *spans, batch=batch).cpu().float()
        index = [torch.tensor(at) - span.start for at, span in zip((at_rows, at_keys), spans, strict=True)]
        return found[index[0]][:, index[1]]


class MinusPyramid:
    """Tiles of A − B: the mean of a cell's differences, and the one that is largest by size."""

    def __init__(self, trace: Minus) -> None:
        self.trace = trace

    def sizes(self, layer: Layer) -> tuple[int, int]:
        """Tokens along the queries and the keys of a layer."""
        query, key = (self.trace.axes[name].axis.length for name in (layer.query_axis, layer.key_axis))
        return query, key

    def tile(self, ask: TileAsk) -> Tile:
        """The tile; slots beyond the axes are cut off. Raises TraceError where weights were not kept."""
        layer = self.trace.layers[ask.layer]
        rows, keys = (
            slice(at * tile_tokens(z), min(size, (at + 1) * tile_tokens(z)))
            for at, z, size in zip((ask.row, ask.key), ask.zoom, self.sizes(layer), strict=True)
        )
        cell = (1 << ask.zoom[0], 1 << ask.zoom[1])
        band = max(BAND, cell[0])
        parts = [
            _cells(
                self.trace.weights(layer, ask.head, slice(at, min(rows.stop, at + band)), keys, batch=ask.batch), cell
            )
            for at in range(rows.start, rows.stop, band)
        ]
        mean, most = (torch.cat([part[n] for part in parts]) for n in (0, 1))
        return Tile(mean, most, torch.full((len(mean),), float(self.sizes(layer)[1])), (rows.start, keys.start), cell)


def _cells(values: Tensor, cell: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Mean and largest by size of the cells of [rows, keys]; the last ones of an axis may be smaller."""
    if cell == (1, 1):
        return values, values
    fill = (0, -values.shape[1] % cell[1], 0, -values.shape[0] % cell[0])
    count = torch.nn.functional.pad(torch.ones_like(values), fill)
    wide, there = (
        x.unflatten(1, (-1, cell[1])).unflatten(0, (-1, cell[0]))
        for x in (torch.nn.functional.pad(values, fill), count)
    )
    high, low = wide.amax((1, 3)), wide.amin((1, 3))
    return wide.double().sum((1, 3)).float() / there.sum((1, 3)), torch.where(-low > high, low, high)


def served_minus(trace: Minus, names: list[str], which: int, like: Scene) -> Scene:
    """The scene of A − B that a served page begins with. like: the scene of A."""
    shelf = Shelf()
    layers: list[dict[str, Any]] = [_layer(trace, layer, 0, SMALL, shelf) for layer in trace.layers]
    return {key: like[key] for key in ("format", "model", "made", "batch", "batches", "statistic")} | {
        "signed": True,
        "pick": most_changed(trace, 0),
        "statistics": _statistics(trace, 0),
        "links": [],
        "finds": [],
        "answer": None,
        "axes": {name: _axis(tokens, 0, shelf) for name, tokens in trace.axes.items()},
        "layers": layers,
        "exact": True,
        "dropped": [],
        "arrays": shelf.blobs,
        "served": {"names": names, "trace": which, "deep": True},
    }
