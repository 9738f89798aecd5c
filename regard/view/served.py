"""Scenes for a page that can ask for more: a light one of all heads, and the numbers of one head.

A served scene is a "regard scene 1" whose layers hold small maps and no tracks or links; `served` says that the page
may ask for the rest, and from which Trace. `head_scene` gives one head's tracks, bins and whole overview in the same
format, a single layer with a single head.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

from torch import Tensor

from regard.seeing.trace import Layer, Trace
from regard.view.arrays import Shelf
from regard.view.scene import Detail, Scene, _axis, _layer, opening, scene

SMALL = Detail("float16", 1, True, 32)
HEAD = Detail("float32", 8, True, 2048)


def served_scene(trace: Trace, batch: int, statistic: str | None, names: list[str], which: int) -> Scene:
    """The first scene of a page that is served. names: of all Traces that are open; which: this one among them.

    A Trace whose maps all are exact matrices is short: it gives its whole scene.
    """
    served = {"names": names, "trace": which, "deep": not _whole(trace)}
    if _whole(trace):
        return scene(trace, batch, statistic) | {"served": served}
    shelf = Shelf()
    light = copy.copy(trace)
    light.statistics = {label: about for label, about in trace.statistics.items() if about.shape == "map"}
    about = opening(trace, batch, statistic) | {
        "axes": {name: _axis(tokens, batch, shelf) for name, tokens in trace.axes.items()},
        "layers": [_layer(light, layer, batch, SMALL, shelf) for layer in trace.layers],
        "exact": True,
        "dropped": [],
    }
    return about | {"arrays": shelf.blobs, "served": served}


def _whole(trace: Trace) -> bool:
    maps = [layer.results["overview"] for layer in trace.layers if "overview" in layer.results]
    return len(maps) == len(trace.layers) and not any(bool(each["shifts"].any()) for each in maps)


def head_scene(trace: Trace, place: int, head: int, batch: int) -> dict[str, Any]:
    """{layer, arrays}: one head's tracks (over bands where it is long), bins and overview, as a layer of a scene.

    Links are left out where rows are in bands: a page asks for rows instead.
    """
    layer, shelf = trace.layers[place], Shelf()
    index = layer.head_place(head)
    rows = trace.axes[layer.query_axis].axis.length
    long = rows > (HEAD.side or rows)
    results = {
        label: {name: _of_head(value, index, name) for name, value in values.items()}
        for label, values in layer.results.items()
        if not (long and trace.statistics[label].shape == "top")
    }
    alone = Layer(layer.name, layer.index, layer.kind, layer.stack, [head], layer.query_axis, layer.key_axis, results)
    alone.summaries = {label: numbers[:, index : index + 1] for label, numbers in layer.summaries.items()}
    alone.undefined = layer.undefined
    return {"layer": _layer(trace, alone, batch, replace(HEAD), shelf), "arrays": shelf.blobs}


def _of_head(value: Tensor, index: int, name: str) -> Tensor:
    """One head of a result [B, heads or 1, …]; the shifts of a map are of all heads."""
    if name == "shifts":
        return value
    at = min(index, value.shape[1] - 1)
    return value[:, at : at + 1]
