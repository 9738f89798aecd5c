"""The scene: a Trace as one small JSON object, from which terminal, image and page are drawn.

`scene` is a pure function. What it returns ("regard scene 1"):

    format, model, made          as in the Trace
    batch, batches               which sequence of the batch this is, counted from 0, and how many there were
    signed                       true for a difference of two traces: numbers may be negative
    statistics                   [{label, title, formula, unit, shape, head_title, head_unit, low, high}]; the last
                                 four are of its one number per head, low and high over all heads
    statistic                    the label that the head grid starts with, or null
    axes                         name -> {length, kind, grid, text, positions, special, padding, prompt, seconds,
                                 picture, wave, spectrogram, loss}: the last six as in the Trace, or null
                                 text is safe to show (words.visible); special and padding list slots
    layers                       [{title, name, index, kind, stack, heads, query, key, undefined, summaries,
                                   rows, keys, bins, tops, maps}], query and key name axes;
                                 summaries: label -> a number per head
      rows, keys                 label -> {values, band}: [heads, rows / band], means over bands of `band` tokens
      bins                       label -> values [heads, bins]
      tops                       label -> {weights, keys, rows, rest, band}: the strongest links of each band of rows,
                                 strongest first, unused places have weight 0; rows is null where band is 1;
                                 rest [heads, rows] is the mass of all others, null where band is more than 1
      maps                       label -> {exact, cell, mean, max, count}: [heads, rows, keys]; cell is tokens per
                                 cell [rows, keys]; exact: a cell is one pair and mean is max; count: allowed pairs
    links                        the strongest links overall: [{layer, head, row, key, weight}], layer by its place
    finds                        heads of a kind that has a name, as regard.view.finds gives them
    pick                         {layer, head, why}: what to look at first, or null
    answer                       {task, text, confidence, choices, pieces, axis, rows, note}: what the head said of this
                                 sequence (regard.seeing.answer), text safe to show; null where nothing asked it
    exact                        true where tracks and exact maps are float32, so that they equal the Trace's
    dropped                      sentences on what was left out or coarsened to keep this small
    arrays                       the blobs that array references point into (regard.view.arrays)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from regard.seeing.cells import pooled
from regard.seeing.trace import Layer, Tokens, Trace, TraceError
from regard.view import words
from regard.view.answered import said
from regard.view.arrays import Shelf
from regard.view.finds import finds
from regard.view.links import strongest
from regard.view.pick import pick

FORMAT = "regard scene 1"
LIMIT_CHARACTERS = 3_700_000  # of arrays, so that a page stays under 4 MB
LINKS_OVERALL = 48

Scene = dict[str, Any]


@dataclass(frozen=True)
class Detail:
    """How finely a scene is kept. number: type of tracks and exact maps; side: most map cells a side, None for all;
    banded: tracks and links per band of rows instead of per row."""

    number: str
    links: int
    banded: bool
    side: int | None


LADDER = (
    Detail("float32", 16, False, None),
    Detail("float16", 8, False, None),
    Detail("float16", 4, False, 128),
    Detail("float16", 8, True, 128),
    Detail("float16", 4, True, 64),
    Detail("float16", 2, True, 32),
    Detail("float16", 1, True, 16),
)


def scene(trace: Trace, batch: int = 0, statistic: str | None = None, limit: int = LIMIT_CHARACTERS) -> Scene:
    """The scene of one sequence of a Trace, as fine as fits `limit` characters of arrays.

    statistic: the label that colours the head grid at first. Raises TraceError for a batch place or label not there.
    """
    head = opening(trace, batch, statistic)
    head["links"] = [link.json() for link in strongest(trace, LINKS_OVERALL, batch=batch)]
    return head | fitted(trace, batch, limit)


def opening(trace: Trace, batch: int, statistic: str | None) -> Scene:
    """What a scene says of a Trace as a whole: no links yet, axes, layers or arrays."""
    batches = check_batch(trace, batch)
    if statistic is not None and statistic not in trace.statistics:
        raise TraceError(f"{statistic!r} was not watched; watched: {', '.join(trace.statistics) or 'nothing'}")
    first = pick(trace, batch)
    return {
        "format": FORMAT,
        "model": trace.model,
        "made": trace.made,
        "batch": batch,
        "batches": batches,
        "signed": False,
        "statistics": _statistics(trace, batch),
        "statistic": statistic or (first and first["statistic"]) or _first_with_numbers(trace),
        "links": [],
        "finds": finds(trace, batch),
        "pick": first,
        "answer": said(trace, batch),
    }


def check_batch(trace: Trace, batch: int) -> int:
    """How many sequences the Trace holds. Raises TraceError if `batch` is not one of them."""
    batches = trace.batches
    if not 0 <= batch < batches:
        raise TraceError(f"batch place {batch} is not there; the trace holds {words.plural(batches, 'sequence')}")
    return batches


def fitted(trace: Trace, batch: int, limit: int) -> Scene:
    """Axes, layers and arrays on the finest rung of the ladder that fits, and what was dropped for it."""
    for place, detail in enumerate(LADDER):
        last = place == len(LADDER) - 1
        if not last and _raw_bytes(trace, detail) > 2 * limit:
            continue
        shelf = Shelf()
        axes = {name: _axis(tokens, batch, shelf) for name, tokens in trace.axes.items()}
        layers = []
        for layer in trace.layers:
            layers.append(_layer(trace, layer, batch, detail, shelf))
            if shelf.size > limit and not last:
                break
        else:
            break
    return {
        "axes": axes,
        "layers": layers,
        "exact": detail.number == "float32",
        "dropped": _dropped(trace, layers, detail),
        "arrays": shelf.blobs,
    }


def _raw_bytes(trace: Trace, detail: Detail) -> int:
    """About how many bytes of arrays a rung holds before compression."""
    total = 0
    width = 4 if detail.number == "float32" else 2
    for layer in trace.layers:
        rows, keys = (trace.axes[name].axis.length for name in (layer.query_axis, layer.key_axis))
        cells = [min(length, detail.side or 128) for length in (rows, keys)]
        kept = cells[0] if detail.banded else rows
        per_row = sum({"row": width, "top": 6 * detail.links}.get(a.shape, 0) for a in trace.statistics.values())
        total += len(layer.heads) * (kept * per_row + 2 * cells[0] * cells[1])
    return total


# ---- parts ----------------------------------------------------------------------------------------------------------


def _statistics(trace: Trace, batch: int) -> list[dict[str, Any]]:
    found = []
    for label, about in trace.statistics.items():
        numbers = [
            x for layer in trace.layers if label in layer.summaries for x in layer.summaries[label][batch].tolist()
        ]
        finite = [x for x in numbers if math.isfinite(x)]
        title = about.title or label
        found.append(
            {
                "label": label,
                "title": title,
                "head_title": about.head_title or title,
                "head_unit": about.head_unit or about.unit,
                "formula": about.formula,
                "unit": about.unit,
                "shape": about.shape,
                "low": min([0.0, *finite]),
                "high": max([0.0, *finite]),
            }
        )
    return found


def _first_with_numbers(trace: Trace) -> str | None:
    return next((label for label in trace.statistics if any(label in x.summaries for x in trace.layers)), None)


def _axis(tokens: Tokens, batch: int, shelf: Shelf) -> dict[str, Any]:
    axis = tokens.axis
    text = [words.visible(t) for t in tokens.text[batch]][: axis.length] if batch < len(tokens.text) else []
    return {
        "length": axis.length,
        "kind": tokens.kind,
        "grid": list(tokens.grid) if tokens.grid else None,
        "text": text + [""] * (axis.length - len(text)),
        "positions": shelf.put_whole(axis.positions[batch]),
        "special": [] if axis.special is None else _slots(axis.special[batch] & axis.valid[batch]),
        "padding": _slots(~axis.valid[batch]),
        "prompt": tokens.prompt,
        "seconds": tokens.seconds,
        "picture": None if tokens.picture is None else shelf.put(tokens.picture[batch], "uint8"),
        "wave": None if tokens.wave is None else shelf.put(tokens.wave[batch], "float16"),
        "loss": None if tokens.loss is None else shelf.put(tokens.loss[batch], "float32"),
        "spectrogram": None if tokens.spectrogram is None else shelf.put(tokens.spectrogram[batch], "uint8"),
    }


def _slots(flags: Tensor) -> list[int]:
    return [int(i) for i in flags.nonzero()[:, 0]]


def _layer(trace: Trace, layer: Layer, batch: int, detail: Detail, shelf: Shelf) -> dict[str, Any]:
    parts: dict[str, dict[str, Any]] = {"rows": {}, "keys": {}, "bins": {}, "tops": {}, "maps": {}}
    query, key = (trace.axes[name].axis for name in (layer.query_axis, layer.key_axis))
    row_band, key_band = (_band(axis.length, detail) for axis in (query, key))
    for label in (label for label in trace.statistics if label in layer.results):
        results = layer.results[label]
        mine = {name: value if name == "shifts" else value[batch] for name, value in results.items()}
        shape = trace.statistics[label].shape
        if shape == "row":
            values = banded(mine["rows"], query.valid[batch], row_band)
            parts["rows"][label] = {"values": shelf.put(values, detail.number), "band": row_band}
        elif shape == "key":
            values = banded(mine["keys"], key.valid[batch], key_band)
            parts["keys"][label] = {"values": shelf.put(values, detail.number), "band": key_band}
        elif shape == "bins":
            parts["bins"][label] = shelf.put(mine["bins"], "float32")
        elif shape == "top":
            parts["tops"][label] = _top(mine, row_band, detail.links, shelf)
        else:
            parts["maps"][label] = _map(mine, detail, shelf)
    return {
        "title": layer.title,
        "name": layer.name,
        "index": layer.index,
        "kind": layer.kind,
        "stack": layer.stack,
        "heads": list(layer.heads),
        "query": layer.query_axis,
        "key": layer.key_axis,
        "undefined": dict(layer.undefined),
        "summaries": {label: numbers[batch].tolist() for label, numbers in layer.summaries.items()},
        **parts,
    }


def _band(length: int, detail: Detail) -> int:
    """How many tokens a band holds: the smallest power of two that leaves at most `side` bands."""
    band = 1
    while detail.banded and detail.side is not None and -(-length // band) > detail.side:
        band *= 2
    return band


def banded(values: Tensor, valid: Tensor, band: int) -> Tensor:
    """[heads, tokens] averaged over the valid tokens of each band of `band`; 0 where a band has none."""
    if band == 1:
        return values
    weight = valid[: values.shape[-1]].to(torch.float64)
    fill = -values.shape[-1] % band
    total, count = (
        torch.nn.functional.pad(x, (0, fill)).unflatten(-1, (-1, band)).sum(-1)
        for x in (values.to(torch.float64) * weight, weight)
    )
    return total / count.clamp(min=1)


def _top(results: dict[str, Tensor], band: int, links: int, shelf: Shelf) -> dict[str, Any]:
    weights, keys, rest = results["weights"], results["keys"], results["rest"]
    kept = min(links, weights.shape[-1])
    if band == 1:
        elsewhere = rest + weights[..., kept:].sum(-1)
        return {
            "weights": shelf.put(weights[..., :kept], "float32"),
            "keys": shelf.put_whole(keys[..., :kept]),
            "rows": None,
            "rest": shelf.put(elsewhere, "float32"),
            "band": 1,
        }
    fill = (0, 0, 0, -weights.shape[1] % band)
    rows = torch.arange(weights.shape[1])[None, :, None].expand(weights.shape)
    flat = [torch.nn.functional.pad(x, fill).unflatten(1, (-1, band)).flatten(2) for x in (weights, keys, rows)]
    best = flat[0].sort(dim=-1, descending=True, stable=True)
    order = best.indices[..., :kept]
    return {
        "weights": shelf.put(best.values[..., :kept], "float32"),
        "keys": shelf.put_whole(flat[1].gather(-1, order)),
        "rows": shelf.put_whole(flat[2].gather(-1, order)),
        "rest": None,
        "band": band,
    }


def _map(results: dict[str, Tensor], detail: Detail, shelf: Shelf) -> dict[str, Any]:
    mean, largest, count = results["mean"], results["max"], results["count"]
    shifts = [int(x) for x in results["shifts"]]
    for side in (0, 1):
        while detail.side is not None and mean.shape[1 + side] > detail.side:
            mean, largest, count = _coarser(mean, largest, count, side)
            shifts[side] += 1
    exact = not any(shifts)
    number = detail.number if exact else "log8"
    return {
        "exact": exact,
        "cell": [1 << shifts[0], 1 << shifts[1]],
        "mean": shelf.put(largest if exact else mean, number),
        "max": shelf.put(largest, number),
        "count": shelf.put_whole(count.round().long()),
    }


def _coarser(mean: Tensor, largest: Tensor, count: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Cells of [heads, rows, keys] merged two by two along rows (side 0) or keys (side 1)."""
    step = (1, 0) if side == 0 else (0, 1)
    total = pooled((mean * count)[None], (0, 0), step, "sum")[0]
    merged = pooled(count[None], (0, 0), step, "sum")[0]
    return (total / merged.clamp(min=1)).float(), pooled(largest[None], (0, 0), step, "amax")[0], merged


def _dropped(trace: Trace, layers: list[dict[str, Any]], detail: Detail) -> list[str]:
    said = []
    if detail.number == "float16":
        said.append("tracks and exact maps are kept as float16: numbers read from them are marked ≈")
    kept = max((ref["weights"]["shape"][-1] for x in layers for ref in x["tops"].values()), default=0)
    there = max((r["weights"].shape[-1] for x in trace.layers for r in x.results.values() if "rest" in r), default=0)
    band = max((ref["band"] for x in layers for ref in x["tops"].values()), default=1)
    if band > 1:
        said.append(f"links are kept for bands of rows ({band} tokens at most), the {kept} strongest of each")
    elif kept < there:
        said.append(f"of the {there} strongest links of each row, {kept} are kept; the others count as elsewhere")
    band = max((ref["band"] for x in layers for ref in [*x["rows"].values(), *x["keys"].values()]), default=1)
    if band > 1:
        said.append(f"numbers per token are means over bands of up to {band} tokens")
    coarser = any(
        list(x.results[label]["shifts"]) != [int(math.log2(side)) for side in kept_map["cell"]]
        for x, kept_layer in zip(trace.layers, layers, strict=True)
        for label, kept_map in kept_layer["maps"].items()
    )
    if coarser:
        said.append(f"maps are pooled to at most {detail.side} cells a side")
    return said
