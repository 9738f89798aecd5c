"""A region of one head's map at any zoom: means and maxima of exact weights over cells, for whoever draws it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from regard.seeing.cells import pooled
from regard.seeing.trace import Layer, Trace, TraceError

BAND_PAIRS = 1 << 20


@dataclass(frozen=True, eq=False)
class Tiles:
    """[rows, keys] cells: mean over allowed pairs and maximum float32, and how many pairs each allows, float64.

    cell: tokens a cell covers (rows, keys); begin: the slots of the first cell's first pair.
    """

    mean: Tensor
    max: Tensor
    count: Tensor
    cell: tuple[int, int]
    begin: tuple[int, int]


def tiles(
    trace: Trace,
    layer: int | Layer,
    head: int,
    rows: slice = slice(None),
    keys: slice = slice(None),
    *,
    cell: tuple[int, int] = (1, 1),
    batch: int = 0,
) -> Tiles:
    """The cells that touch rows × keys of a head's map. A cell is `cell` tokens, powers of two, anchored at slot 0.

    From the overview where its cells are as fine as those asked for, else from kept queries and keys, at the cost of
    the region. Raises TraceError where neither is there, or for a cell that is no power of two.
    """
    if any(side < 1 or side & (side - 1) for side in cell):
        raise TraceError(f"a cell's sides are powers of two, got {cell[0]} × {cell[1]}")
    shifts = (cell[0].bit_length() - 1, cell[1].bit_length() - 1)
    seen = trace.layer(layer) if isinstance(layer, int) else layer
    index = seen.head_place(head)
    sizes = [trace.axes[name].axis.length for name in (seen.query_axis, seen.key_axis)]
    spans = []
    for part, size, side in zip((rows, keys), sizes, cell, strict=True):
        begin, end, _ = part.indices(size)
        spans.append(slice(begin // side * side, max(begin // side * side, min(size, -(-end // side) * side))))
    overview = seen.results.get("overview")
    if overview is not None and all(int(have) <= want for have, want in zip(overview["shifts"], shifts, strict=True)):
        mean, largest, count = _of_overview(overview, batch, index, spans, shifts)
    else:
        mean, largest, count = _of_weights(trace, seen, head, index, batch, spans, shifts)
    return Tiles(mean, largest, count, cell, (spans[0].start, spans[1].start))


def _of_overview(
    overview: dict[str, Tensor], batch: int, index: int, spans: list[slice], shifts: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Cells of the overview, merged."""
    have = [int(x) for x in overview["shifts"]]
    at = [slice(span.start >> s, -(-span.stop >> s)) for span, s in zip(spans, have, strict=True)]
    more = (shifts[0] - have[0], shifts[1] - have[1])
    count = overview["count"]
    count = count[batch, min(index, count.shape[1] - 1), at[0], at[1]]
    mean, largest = (overview[name][batch, index, at[0], at[1]] for name in ("mean", "max"))
    total = _pooled(mean.double() * count, more, "sum")
    merged = _pooled(count, more, "sum")
    return (total / merged.clamp(min=1)).float(), _pooled(largest, more, "amax"), merged


def _of_weights(
    trace: Trace, layer: Layer, head: int, index: int, batch: int, spans: list[slice], shifts: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Exact weights, a band of rows at a time."""
    rows, keys = spans
    side = 1 << shifts[0]
    step = max(1, BAND_PAIRS // max(1, keys.stop - keys.start) // side) * side
    totals, most = [], []
    for begin in range(rows.start, max(rows.stop, rows.start + 1), step):
        band = slice(begin, min(begin + step, rows.stop))
        weights = trace.weights(layer, head, band, keys, batch=batch)
        totals.append(_pooled(weights.double(), shifts, "sum"))
        most.append(_pooled(weights, shifts, "amax"))
    if layer.kept is None:
        raise TraceError(f"the exact weights of layer {layer.title!r} were not kept")
    count = layer.kept.store.allowed(batch, index, rows, keys, shifts, trace.axes[layer.query_axis].axis)
    return (torch.cat(totals) / count.clamp(min=1)).float(), torch.cat(most), count


def _pooled(values: Tensor, shifts: tuple[int, int], how: str) -> Tensor:
    return pooled(values[None, None], (0, 0), shifts, "sum" if how == "sum" else "amax")[0, 0]
