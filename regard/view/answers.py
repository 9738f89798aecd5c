"""What a page may ask of open Traces while it is looked at: tiles, rows, columns, heads, links, steps back.

A question is a name and its fields as text, as they come in an address; an answer is bytes: the length of a JSON text
as uint32, that text (padded with spaces to four bytes), then float32 numbers, all little-endian. The same questions
come from the app over HTTP and from a notebook's widget as messages.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from regard.errors import UserError
from regard.seeing.trace import Layer, Trace
from regard.view.difference import FORMAT as COMPARED
from regard.view.links import strongest
from regard.view.minus import Minus, MinusPyramid, served_minus
from regard.view.pyramid import Pyramid, TileAsk, tile_tokens
from regard.view.served import head_scene, served_scene
from regard.view.way import rollout

LINKS = 12
STEPS = 3
MOST_DIGITS = 9
MOST_HIDDEN = 64


class Refused(UserError):
    """A question that cannot be answered; status: as in HTTP."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class Answers:
    """Answers about some Traces by name. Several threads may ask at once."""

    def __init__(self, traces: Sequence[tuple[str, Trace]], statistic: str | None = None) -> None:
        self.traces = [trace for _, trace in traces]
        self.names = [name for name, _ in traces]
        self.pyramids: list[Pyramid | MinusPyramid] = [Pyramid(trace) for trace in self.traces]
        self.minus = Minus.between(*self.traces) if len(self.traces) == 2 else None
        if self.minus is not None:
            self.traces.append(self.minus)
            self.pyramids.append(MinusPyramid(self.minus))
            self.names.append(f"{self.names[0]} − {self.names[1]}")
        self.statistic = statistic

    def scene(self, which: int = 0, batch: int = 0) -> dict[str, Any]:
        """The scene a page starts with. Raises Refused for a Trace or sequence that is not there."""
        fields = Fields({"trace": str(which), "batch": str(batch)})
        trace = self.traces[fields.number("trace", len(self.traces))]
        fields.number("batch", trace.batches)
        if trace is self.minus:
            return self._comparison(which)
        known = self.statistic if self.statistic in trace.statistics else None
        return served_scene(trace, batch, known, self.names, which)

    def _comparison(self, which: int) -> dict[str, Any]:
        """A, B and A − B as one page: the scenes of all three, by name, and which slots of A and B the last holds."""
        assert self.minus is not None
        scenes = [served_scene(trace, 0, None, self.names, at) for at, trace in enumerate(self.minus.of)]
        scenes.append(served_minus(self.minus, self.names, which, scenes[0]))
        scenes[1]["statistic"] = scenes[0]["statistic"]
        slots = {name: [each[name] for each in self.minus.slots] for name in self.minus.axes}
        same = self.minus.why is None
        return {
            "format": COMPARED,
            "names": self.names,
            "scenes": scenes,
            "aligned": True,
            "why": self.minus.why,
            "slots": None if same else slots,
            "served": {"names": self.names, "trace": which, "deep": True},
        }

    def answer(self, what: str, asked: Mapping[str, str]) -> bytes:
        """The answer to one question. Raises Refused, or TraceError where weights were not kept."""
        if what not in (*QUESTIONS, "links"):
            raise Refused(f"there is no question {what[:40]!r}; there are: {', '.join(QUESTIONS)}, links", 404)
        fields = Fields(asked)
        which = fields.number("trace", len(self.traces), "0")
        trace = self.traces[which]
        batch = fields.number("batch", trace.batches, "0")
        if what == "links":
            return packed({"links": [link.json() for link in strongest(trace, LINKS, batch=batch)]})
        place = fields.number("layer", len(trace.layers))
        head = fields.number("head", None)
        if head not in trace.layers[place].heads:
            raise Refused(f"head {head} of layer {place} was not watched", 404)
        return QUESTIONS[what](self.pyramids[which], place, head, batch, fields)


class Fields:
    """The fields of a question, read with their limits."""

    def __init__(self, given: Mapping[str, str]) -> None:
        self.given = given

    def number(self, name: str, below: int | None, default: str | None = None) -> int:
        """A whole number from 0 to below-1. Raises Refused: 400 for what is no number, 404 for one out of range."""
        text = self.given.get(name, default)
        if text is None or not re.fullmatch(rf"[0-9]{{1,{MOST_DIGITS}}}", text):
            raise Refused(f"{name} is a whole number from 0 on, got {str(text)[:40]!r}")
        if below is not None and int(text) >= below:
            raise Refused(f"{name} is {text}, and there are {below}, counted from 0", 404)
        return int(text)

    def one_of(self, name: str, values: Sequence[str], default: str) -> str:
        text = self.given.get(name, default)
        if text not in values:
            raise Refused(f"{name} is one of {', '.join(values)}, got {text[:40]!r}")
        return text


def packed(about: dict[str, Any], *numbers: Tensor) -> bytes:
    """An answer, as the page reads it."""
    text = json.dumps(about, separators=(",", ":"), allow_nan=False).encode()
    text += b" " * (-len(text) % 4)
    parts = [x.detach().cpu().numpy().astype("<f4").tobytes() for x in numbers]
    return len(text).to_bytes(4, "little") + text + b"".join(parts)


def unpacked(answer: bytes) -> tuple[dict[str, Any], NDArray[Any]]:
    """What `packed` wrote: the JSON, and the numbers one after the other."""
    end = 4 + int.from_bytes(answer[:4], "little")
    return json.loads(answer[4:end]), np.frombuffer(answer[end:], "<f4")


# ---- questions ------------------------------------------------------------------------------------------------------


def _tile(seen: Pyramid | MinusPyramid, place: int, head: int, batch: int, fields: Fields) -> bytes:
    """layer, head, row, key (in tiles), zr, zk, which: mean or max. Numbers: the cells, then their rows' allowed."""
    sizes = seen.sizes(seen.trace.layers[place])
    zoom = tuple(
        fields.number(name, max(1, (size - 1).bit_length()) + 1, "0") for name, size in zip(("zr", "zk"), sizes)
    )
    counts = [-(-size // tile_tokens(z)) for size, z in zip(sizes, zoom)]
    row, key = (fields.number(name, count) for name, count in zip(("row", "key"), counts))
    which = fields.one_of("which", ("max", "mean"), "max")
    tile = seen.tile(TileAsk(place, head, row, key, (zoom[0], zoom[1]), batch))
    cells = tile.max if which == "max" else tile.mean
    about = {"rows": cells.shape[0], "keys": cells.shape[1], "begin": tile.begin, "cell": tile.cell}
    return packed(about, cells, tile.allowed)


def _row(seen: Pyramid | MinusPyramid, place: int, head: int, batch: int, fields: Fields) -> bytes:
    """layer, head, row (a slot). Numbers: the row's exact weights over all keys, NaN where it may not look."""
    layer = seen.trace.layers[place]
    row = fields.number("row", seen.sizes(layer)[0])
    weights = seen.trace.weights(layer, head, slice(row, row + 1), batch=batch)[0]
    hidden = _allowed(seen, layer, head, batch, slice(row, row + 1), slice(0, len(weights)))[0] == 0
    index = layer.head_place(head)
    numbers = {
        label: float(results["rows"][batch, index, row])
        for label, results in layer.results.items()
        if seen.trace.statistics[label].shape == "row"
    }
    return packed({"row": row, "numbers": numbers}, weights.cpu().masked_fill(hidden, torch.nan))


def _column(seen: Pyramid | MinusPyramid, place: int, head: int, batch: int, fields: Fields) -> bytes:
    """layer, head, key (a slot). Numbers: the exact weight that each query gives it, NaN where it may not."""
    layer = seen.trace.layers[place]
    key = fields.number("key", seen.sizes(layer)[1])
    weights = seen.trace.weights(layer, head, slice(None), slice(key, key + 1), batch=batch)[:, 0]
    hidden = _allowed(seen, layer, head, batch, slice(0, len(weights)), slice(key, key + 1))[:, 0] == 0
    return packed({"key": key}, weights.cpu().masked_fill(hidden, torch.nan))


def _allowed(seen: Pyramid | MinusPyramid, layer: Layer, head: int, batch: int, rows: slice, keys: slice) -> Tensor:
    """Which pairs of a rectangle are visible, as counts 0 or 1."""
    index, query = layer.head_place(head), seen.trace.axes[layer.query_axis].axis
    if layer.kept is not None and layer.kept.store.scorings and not layer.kept.calls:
        return layer.kept.store.allowed(batch, index, rows, keys, (0, 0), query)
    overview = layer.results.get("overview")
    if overview is not None and not bool(overview["shifts"].any()):
        return overview["count"][batch, min(index, overview["count"].shape[1] - 1), rows, keys]
    return torch.ones(rows.stop - rows.start, keys.stop - keys.start)


def _mass(seen: Pyramid | MinusPyramid, place: int, head: int, batch: int, fields: Fields) -> bytes:
    """layer, head, hide (the first so many positions), special (1 for special tokens too): {slots} of these keys.

    Numbers: the share of each row that they hold.
    """
    layer = seen.trace.layers[place]
    axis = seen.trace.axes[layer.key_axis].axis
    hidden = axis.positions[batch] < fields.number("hide", axis.length + 1, "0")
    if fields.one_of("special", ("0", "1"), "0") == "1" and axis.special is not None:
        hidden |= axis.special[batch]
    slots = [int(slot) for slot in (hidden & axis.valid[batch]).nonzero()[:, 0]]
    if len(slots) > MOST_HIDDEN:
        raise Refused(f"at most {MOST_HIDDEN} keys can be hidden, and these are {len(slots)}")
    mass = torch.zeros(seen.sizes(layer)[0])
    for begin, end in _runs(slots):
        mass += seen.trace.weights(layer, head, slice(None), slice(begin, end), batch=batch).sum(-1).cpu()
    return packed({"slots": slots}, mass)


def _runs(slots: Sequence[int]) -> list[tuple[int, int]]:
    """Slots beside each other as [begin, end)."""
    runs: list[tuple[int, int]] = []
    for slot in slots:
        if runs and runs[-1][1] == slot:
            runs[-1] = (runs[-1][0], slot + 1)
        else:
            runs.append((slot, slot + 1))
    return runs


def _head(seen: Pyramid | MinusPyramid, place: int, head: int, batch: int, fields: Fields) -> bytes:
    """layer, head: its tracks, bins and overview."""
    return packed(head_scene(seen.trace, place, head, batch))


def _step(seen: Pyramid | MinusPyramid, place: int, head: int, batch: int, fields: Fields) -> bytes:
    """layer, row (a slot): the strongest links of that row in every head of the layer, {head: [[key, weight]]}."""
    layer = seen.trace.layers[place]
    row = fields.number("row", seen.sizes(layer)[0])
    links = {}
    for each in layer.heads:
        weights = seen.trace.weights(layer, each, slice(row, row + 1), batch=batch)[0]
        best = weights.topk(min(STEPS + 2, len(weights)))
        links[each] = [[int(key), float(weight)] for weight, key in zip(best.values, best.indices) if weight > 0]
    return packed({"row": row, "links": links})


def _way(seen: Pyramid | MinusPyramid, place: int, head: int, batch: int, fields: Fields) -> bytes:
    """layer, row (a slot): rollout from this token of the layer down. Numbers: a row per layer, the top first."""
    row = fields.number("row", seen.sizes(seen.trace.layers[place])[0])
    return packed({"row": row}, rollout(seen.trace, place, row, batch).float())


Question = Callable[[Pyramid | MinusPyramid, int, int, int, Fields], bytes]
QUESTIONS: dict[str, Question] = {
    "tile": _tile,
    "row": _row,
    "column": _column,
    "head": _head,
    "step": _step,
    "mass": _mass,
    "way": _way,
}
