"""Tiles of a head's map at any zoom: exact cells at the bottom, pooled ones above, the expensive ones computed once.

A tile is at most 128 × 128 cells of 2^z × 2^z' tokens, and at most 8192 tokens a side, so that no tile costs more than
a few blocks. Where cells are 32 tokens or more, weights are pooled in blocks of 4096 × 4096 tokens, which all coarser
tiles share; blocks are kept up to a bound, those that were used last.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor

from regard.seeing.cells import pooled, shift_for
from regard.seeing.store import Store
from regard.seeing.tiles import tiles
from regard.seeing.trace import Layer, Trace

SIDE, REACH = 128, 8192
BASE, BLOCK = 5, 4096
KEPT_BYTES = 128 << 20

Cells = tuple[Tensor, Tensor, Tensor]
"""Sum, maximum and number of visible pairs of each cell [row cells, key cells]."""


@dataclass(frozen=True)
class TileAsk:
    """One tile: layer by its place in the Trace, head by its number, row and key counted in tiles from slot 0."""

    layer: int
    head: int
    row: int
    key: int
    zoom: tuple[int, int] = (0, 0)
    batch: int = 0


@dataclass(frozen=True, eq=False)
class Tile:
    """mean and max float32 [rows, keys], NaN where no pair of a cell is visible; allowed: visible keys of a row, its
    mean over each cell of rows; begin: slots of the first pair; cell: tokens a cell covers."""

    mean: Tensor
    max: Tensor
    allowed: Tensor
    begin: tuple[int, int]
    cell: tuple[int, int]


def tile_tokens(zoom: int) -> int:
    """How many tokens a tile's side covers where cells are 2^zoom tokens."""
    return min(SIDE << zoom, max(REACH, 1 << zoom))


class Pyramid:
    """The tiles of one Trace. Several threads may ask at once."""

    def __init__(self, trace: Trace, kept_bytes: int = KEPT_BYTES) -> None:
        self.trace = trace
        self._most = kept_bytes
        self._held = 0
        self._blocks: OrderedDict[tuple[object, ...], Cells] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def held_bytes(self) -> int:
        return self._held

    def tile(self, ask: TileAsk) -> Tile:
        """The tile; slots beyond the axes are cut off. Raises TraceError where weights were not kept."""
        layer = self.trace.layers[ask.layer]
        rows, keys = (
            slice(at * tile_tokens(z), min(size, (at + 1) * tile_tokens(z)))
            for at, z, size in zip((ask.row, ask.key), ask.zoom, self.sizes(layer), strict=True)
        )
        total, most, count = self._cells(layer, ask, (rows, keys))
        hidden = count <= 0
        mean = (total / count.clamp(min=1)).float().masked_fill(hidden, torch.nan)
        most = most.float().masked_fill(hidden, torch.nan)
        begin = (rows.start, keys.start)
        return Tile(mean, most, self._allowed(layer, ask, rows), begin, (1 << ask.zoom[0], 1 << ask.zoom[1]))

    def sizes(self, layer: Layer) -> tuple[int, int]:
        """Tokens along the queries and the keys of a layer."""
        query, key = (self.trace.axes[name].axis.length for name in (layer.query_axis, layer.key_axis))
        return query, key

    # ---- cells ------------------------------------------------------------------------------------------------------

    def _cells(self, layer: Layer, ask: TileAsk, spans: tuple[slice, slice]) -> Cells:
        if _from_overview(layer, ask.zoom) or layer.kept is None or layer.kept.calls:
            cell = (1 << ask.zoom[0], 1 << ask.zoom[1])
            seen = tiles(self.trace, layer, ask.head, *spans, cell=cell, batch=ask.batch)
            return seen.mean.double() * seen.count, seen.max, seen.count
        if max(ask.zoom) < BASE:
            return self._walked(layer, ask, spans, ask.zoom)
        return self._of_blocks(layer, ask, spans)

    def _walked(self, layer: Layer, ask: TileAsk, spans: tuple[slice, slice], zoom: tuple[int, int]) -> Cells:
        assert layer.kept is not None
        store, index = layer.kept.store, layer.head_place(ask.head)
        query, key = (self.trace.axes[name].axis for name in (layer.query_axis, layer.key_axis))
        count = store.allowed(ask.batch, index, *spans, zoom, query)
        if not bool(count.any()):
            return torch.zeros(count.shape), torch.zeros(count.shape), count
        if zoom == (0, 0):
            exact = layer.kept.rectangle(ask.batch, index, *spans, (query, key)).cpu()
            return exact, exact, count
        return *store.pooled(ask.batch, index, *spans, zoom, (query, key), layer.kept.walks), count

    def _of_blocks(self, layer: Layer, ask: TileAsk, spans: tuple[slice, slice]) -> Cells:
        """Blocks beside each other, their cells merged."""
        base = (min(ask.zoom[0], BASE), min(ask.zoom[1], BASE))
        more = (ask.zoom[0] - base[0], ask.zoom[1] - base[1])
        bands = []
        for row in range(spans[0].start // BLOCK, -(-spans[0].stop // BLOCK)):
            blocks = range(spans[1].start // BLOCK, -(-spans[1].stop // BLOCK))
            bands.append([self._block(layer, ask, (row, key), base) for key in blocks])
        whole = [torch.cat([torch.cat([block[part] for block in band], 1) for band in bands], 0) for part in range(3)]
        first = [span.start % BLOCK >> shift for span, shift in zip(spans, base, strict=True)]
        count = [-(-(span.stop - span.start) >> shift) for span, shift in zip(spans, base, strict=True)]
        cut = [x[first[0] : first[0] + count[0], first[1] : first[1] + count[1]] for x in whole]
        return _merged(cut[0], more, "sum"), _merged(cut[1], more, "amax"), _merged(cut[2], more, "sum")

    def _block(self, layer: Layer, ask: TileAsk, at: tuple[int, int], base: tuple[int, int]) -> Cells:
        name = (ask.layer, ask.head, ask.batch, at, base)
        with self._lock:
            if name in self._blocks:
                self._blocks.move_to_end(name)
                return self._blocks[name]
        sizes = self.sizes(layer)
        spans = [slice(i * BLOCK, min(size, (i + 1) * BLOCK)) for i, size in zip(at, sizes, strict=True)]
        total, most, count = self._walked(layer, ask, (spans[0], spans[1]), base)
        cells = (total.float(), most, count.float())
        with self._lock:
            if name not in self._blocks:
                self._blocks[name] = cells
                self._held += _bytes(cells)
            while self._held > self._most and len(self._blocks) > 1:
                self._held -= _bytes(self._blocks.popitem(last=False)[1])
        return cells

    def _allowed(self, layer: Layer, ask: TileAsk, rows: slice) -> Tensor:
        """How many keys a row may see, float32 [row cells], the mean over the rows that are not padding."""
        query = self.trace.axes[layer.query_axis].axis
        index, (_, num_keys) = layer.head_place(ask.head), self.sizes(layer)
        cells = -(-(rows.stop - rows.start) >> ask.zoom[0])
        if layer.kept is None or layer.kept.calls or not layer.kept.store.scorings:
            return torch.full((cells,), float(num_keys))
        store: Store = layer.kept.store
        seen = store.allowed(
            ask.batch, index, rows, slice(0, num_keys), (ask.zoom[0], shift_for(num_keys, 1)), query
        ).sum(1)
        valid = query.valid[ask.batch, rows].double()[None, None, :, None]
        counted = pooled(valid, (0, 0), (ask.zoom[0], 0), "sum")[0, 0, :, 0]
        return (seen / counted.clamp(min=1)).float()


def _from_overview(layer: Layer, zoom: tuple[int, int]) -> bool:
    overview = layer.results.get("overview")
    return overview is not None and all(int(have) <= z for have, z in zip(overview["shifts"], zoom, strict=True))


def _merged(cells: Tensor, more: tuple[int, int], how: str) -> Tensor:
    return pooled(cells[None, None], (0, 0), more, "sum" if how == "sum" else "amax")[0, 0]


def _bytes(cells: Cells) -> int:
    return sum(part.nbytes for part in cells)
