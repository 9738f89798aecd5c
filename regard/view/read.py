"""Reading a scene: its arrays as numpy, its heads by name, its maps ready to colour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regard.seeing.trace import Trace, TraceError
from regard.view import words
from regard.view.arrays import load
from regard.view.scene import Scene, scene

Array = NDArray[Any]


def as_scene(given: Trace | Scene, **options: Any) -> Scene:
    """A Trace as its scene; a scene as it is."""
    return scene(given, **options) if isinstance(given, Trace) else given


def scenes_of(given: Trace | Scene) -> tuple[list[Scene], list[str]]:
    """All scenes of a Trace, a scene or a comparison, and the name of each; "" where there is only one."""
    scene = as_scene(given)
    if "scenes" in scene:
        return list(scene["scenes"]), [words.visible(name) for name in scene["names"]]
    return [scene], [""]


def sizes(scene: Scene) -> str:
    """ "12 layers · 144 heads · decoder 600 tokens"."""
    heads = sum(len(layer["heads"]) for layer in scene["layers"])
    parts = [words.plural(len(scene["layers"]), "layer"), words.plural(heads, "head")]
    parts += [f"{name} {words.plural(axis['length'], 'token')}" for name, axis in scene["axes"].items()]
    if scene["batches"] > 1:
        parts.append(f"sequence {scene['batch'] + 1} of {scene['batches']}")
    return " · ".join(parts)


@dataclass(frozen=True, eq=False)
class Map:
    """A head's map [rows, keys]: values, how many pairs each cell allows, and how many tokens a cell covers."""

    values: Array
    count: Array
    exact: bool
    cell: tuple[int, int]


def map_of(scene: Scene, layer: int, head: int, which: str = "max", label: str = "overview") -> Map | None:
    """The map of a head (layer by its place), "mean" or "max"; None where no overview was watched."""
    about = scene["layers"][layer]["maps"].get(label)
    if about is None:
        return None
    place = head_place(scene, layer, head)
    count = load(scene["arrays"], about["count"])
    return Map(
        np.asarray(load(scene["arrays"], about[which])[place], dtype=np.float32),
        count[min(place, len(count) - 1)],
        about["exact"],
        (about["cell"][0], about["cell"][1]),
    )


def answer_looks(
    scene: Scene, layer: int, head: int, most: int
) -> list[tuple[dict[str, Any], list[tuple[int, float]]]]:
    """(piece, its strongest three keys with their weights) of the first pieces of the answer, by one head; nothing
    where the layer's queries are not the answer's axis or its map is no longer exact."""
    answer = scene.get("answer")
    if answer is None or scene["layers"][layer]["query"] != answer["axis"]:
        return []
    found = map_of(scene, layer, head)
    if found is None or not found.exact:
        return []
    links = []
    for piece in answer["pieces"][:most]:
        if piece["slot"] is not None and piece["slot"] < len(found.values):
            row = found.values[piece["slot"]]
            best = [int(key) for key in np.argsort(-row, kind="stable")[:3] if row[key] > 0]
            links.append((piece, [(key, float(row[key])) for key in best]))
    return links


def head_place(scene: Scene, layer: int, head: int) -> int:
    """Where a head lies in the arrays. Raises TraceError for a layer or head that was not watched."""
    if not 0 <= layer < len(scene["layers"]):
        raise TraceError(f"there is no layer at place {layer}; the scene has {len(scene['layers'])}")
    heads = scene["layers"][layer]["heads"]
    if head not in heads:
        title = scene["layers"][layer]["title"]
        raise TraceError(f"head {head} of layer {title!r} was not watched; watched: {', '.join(map(str, heads))}")
    return int(heads.index(head))


def track(scene: Scene, layer: int, head: int, part: str, label: str) -> tuple[Array, int] | None:
    """(numbers along an axis, tokens per number) of a head; part: "rows" or "keys"; None where it is undefined."""
    about = scene["layers"][layer][part].get(label)
    if about is None:
        return None
    return load(scene["arrays"], about["values"])[head_place(scene, layer, head)], about["band"]


def one_stack(scene: Scene) -> bool:
    """Whether all layers are of one stack and kind, so that an index alone names them."""
    return len({(layer["stack"], layer["kind"]) for layer in scene["layers"]}) <= 1


def layer_name(scene: Scene, layer: int) -> str:
    """ "3" where an index is enough, else the title, such as "decoder 3 cross"."""
    about = scene["layers"][layer]
    return str(about["index"]) if one_stack(scene) else str(about["title"])


def head_name(scene: Scene, layer: int, head: int) -> str:
    """ "3.5", or "decoder 3 cross · 5" where there are several stacks."""
    return f"{layer_name(scene, layer)}{'.' if one_stack(scene) else ' · '}{head}"


def head_columns(scene: Scene) -> list[int]:
    """All watched head numbers, in order."""
    return sorted({head for layer in scene["layers"] for head in layer["heads"]})


def summary_grid(scene: Scene, label: str) -> Array:
    """[layers, head columns] of a statistic's number per head, NaN where there is none."""
    columns = head_columns(scene)
    grid = np.full((len(scene["layers"]), len(columns)), np.nan)
    for place, layer in enumerate(scene["layers"]):
        for head, value in zip(layer["heads"], layer["summaries"].get(label, []), strict=False):
            grid[place, columns.index(head)] = value
    return grid


def statistic(scene: Scene, label: str | None = None) -> dict[str, Any] | None:
    """The entry of a statistic, by default the one that colours the grid; None where nothing has numbers."""
    wanted = label or scene["statistic"]
    if wanted is None:
        return None
    for about in scene["statistics"]:
        if about["label"] == wanted:
            return dict(about)
    known = ", ".join(about["label"] for about in scene["statistics"]) or "nothing"
    raise TraceError(f"{wanted!r} was not watched; watched: {known}")


def chosen(scene: Scene, layer: int | None = None, head: int | None = None) -> tuple[int, int, str] | None:
    """(layer place, head, why it is shown): what was asked for, else the scene's pick; None without heads."""
    first = scene["pick"]
    if layer is None and head is None:
        return None if first is None else (first["layer"], first["head"], first["why"])
    place = layer if layer is not None else (first or {"layer": 0})["layer"]
    heads = scene["layers"][place]["heads"] if 0 <= place < len(scene["layers"]) else []
    which = head if head is not None else (heads or [0])[0]
    head_place(scene, place, which)
    return place, which, "as asked"


def pooled_to(found: Map, rows: int, keys: int, largest: bool) -> Map:
    """A map of at most `rows` × `keys` cells: neighbours joined by their maximum, or by their mean over allowed pairs.

    A map of equally many rows and keys stays square.
    """
    values, count = found.values.astype(np.float64), found.count.astype(np.float64)
    cell = list(found.cell)
    groups = [-(-size // max(1, most)) for size, most in zip(values.shape, (rows, keys), strict=True)]
    if values.shape[0] == values.shape[1]:
        groups = [max(groups)] * 2
    for side, group in enumerate(groups):
        if group > 1:
            values, count = _joined(values, count, side, group, largest)
            cell[side] *= group
    exact = found.exact and cell == list(found.cell)
    return Map(values, count, exact, (cell[0], cell[1]))


def _joined(values: Array, count: Array, side: int, group: int, largest: bool) -> tuple[Array, Array]:
    fill = [(0, 0), (0, 0)]
    fill[side] = (0, -values.shape[side] % group)
    shape = list(values.shape)
    shape[side : side + 1] = [-1, group]
    pads = [np.pad(x, fill).reshape(shape) for x in (values, values * count, count)]
    total = pads[2].sum(side + 1)
    joined = pads[0].max(side + 1) if largest else pads[1].sum(side + 1) / np.maximum(total, 1)
    return joined, total


def picture(scene: Scene, axis: str) -> Array | None:
    """The picture that an axis' patches were cut from, [height, width, 3] in 0…1, mostly grey; None if not kept."""
    reference = scene["axes"][axis].get("picture")
    if reference is None:
        return None
    pixels = load(scene["arrays"], reference).astype(np.float64) / 255
    grey = pixels @ np.array([0.3, 0.59, 0.11])
    return np.asarray(0.75 * grey[..., None] + 0.25 * pixels)


def wave(scene: Scene, axis: str) -> Array | None:
    """The outline of a sound [bins, 2], lowest and highest, within ±1; None if not kept."""
    reference = scene["axes"][axis].get("wave")
    if reference is None:
        return None
    values = load(scene["arrays"], reference).astype(np.float64)
    return np.asarray(values / max(1e-6, float(np.abs(values).max(initial=0.0))))


def spectrogram(scene: Scene, axis: str) -> Array | None:
    """Loudness of a sound's bands [bands, frames] in 0…1, low bands first; None if not kept."""
    reference = scene["axes"][axis].get("spectrogram")
    return None if reference is None else load(scene["arrays"], reference).astype(np.float64) / 255
