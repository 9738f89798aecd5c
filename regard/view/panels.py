"""The parts of an image, each of a size in inches, drawn onto a page measured from its top left corner."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from regard.view import colour, read, sound, words
from regard.view.scene import Scene

PAPER, INK, SOFT, SUNK, ACCENT, POSITIVE = "#ffffff", "#1d1c22", "#6a6772", "#f1efeb", "#8f88e0", "#dd8a4e"
LABEL, TRACK, LEGEND = 0.95, 0.42, 0.62
TITLE = 0.42
TOKENS_AT_MOST = 64


@dataclass(frozen=True)
class Page:
    """A figure addressed in inches from the top left corner."""

    figure: Any
    width: float
    height: float

    def axes(self, x: float, y: float, width: float, height: float) -> Any:
        """Bare axes in a rectangle whose top left corner is (x, y)."""
        where = (x / self.width, 1 - (y + height) / self.height, width / self.width, height / self.height)
        made = self.figure.add_axes(where)
        made.set_xticks([])
        made.set_yticks([])
        return made

    def text(
        self, x: float, y: float, text: str, *, size: float = 8, colour: str = INK, weight: str = "normal", **more: Any
    ) -> None:
        """Text on its baseline at (x, y)."""
        at = (x / self.width, 1 - y / self.height)
        more = {"parse_math": False, **more}
        self.figure.text(*at, text, fontsize=size, color=colour, fontweight=weight, **more)

    def legend(
        self, x: float, y: float, width: float, table: colour.Table, ticks: list[tuple[float, str]], said: str
    ) -> None:
        """A ramp with its values below and its words above."""
        self.text(x, y, said, size=7, colour=SOFT)
        bar = self.axes(x, y + 0.06, width, 0.11)
        bar.imshow(table[None], aspect="auto", interpolation="nearest")
        for place, text in ticks:
            side = "left" if place < 0.05 else "right" if place > 0.95 else "center"
            self.text(x + place * width, y + 0.3, text, size=7, colour=SOFT, ha=side)


class HeadGrid:
    """One cell per layer and head, coloured by a statistic's number."""

    def __init__(self, scene: Scene, about: dict[str, Any]) -> None:
        self.scene, self.about = scene, about
        self.grid = read.summary_grid(scene, about["label"])
        rows, columns = self.grid.shape
        self.cell = min(0.36, 3.2 / max(1, columns), 7.0 / max(1, rows))
        self.names = [read.layer_name(scene, place) for place in range(rows)]
        self.label = 0.16 + 0.062 * max(len(name) for name in self.names)
        self.width = max(2.6, self.label + columns * self.cell)
        self.height = TITLE + 0.2 + rows * self.cell + LEGEND

    def draw(self, page: Page, x: float, y: float, room: float) -> None:
        about, signed = self.about, self.about["low"] < 0
        page.text(x, y + 0.08, "Heads", size=10, weight="bold")
        page.text(x, y + 0.24, f"{about['head_title']}, {about['head_unit']}; layers down, heads across", colour=SOFT)
        rows, columns = self.grid.shape
        left, top = x + self.label, y + TITLE + 0.2
        edge = max(-about["low"], about["high"]) or 1.0
        table = colour.diverging() if signed else colour.sequential()
        place = colour.even_place(self.grid, -edge if signed else 0.0, edge)
        axes = page.axes(left, top, columns * self.cell, rows * self.cell)
        cells = colour.of(table, place)
        cells[np.isnan(self.grid)] = _bytes(SUNK)
        axes.imshow(cells, aspect="auto", interpolation="nearest")
        gaps(axes, rows, columns)
        step = max(1, round(0.16 / self.cell))
        for column, head in list(enumerate(read.head_columns(self.scene)))[::step]:
            page.text(left + (column + 0.5) * self.cell, top - 0.06, str(head), size=7, colour=SOFT, ha="center")
        for row, name in list(enumerate(self.names))[:: max(1, round(0.13 / self.cell))]:
            page.text(left - 0.07, top + (row + 0.5) * self.cell + 0.03, name, size=7, colour=SOFT, ha="right")
        if self.cell >= 0.3:
            _numbers(axes, self.grid, ~np.isnan(self.grid), cells, least=0.0)
        ticks = [(0.0, words.number(-edge) if signed else "0"), (1.0, words.number(edge))]
        below = top + rows * self.cell + 0.24
        page.legend(x, below, min(self.width, 2.6), table, [*ticks, (0.5, "0")] if signed else ticks, "even scale")


class Heads:
    """The head grid, and below it the strongest links, as many as there is room for."""

    def __init__(self, scene: Scene, about: dict[str, Any], drawable: Callable[[str], str]) -> None:
        self.scene, self.drawable = scene, drawable
        self.grid = HeadGrid(scene, about)
        self.width = max(self.grid.width, 2.6 if read.one_stack(scene) else 3.6)
        self.height = self.grid.height

    def draw(self, page: Page, x: float, y: float, room: float) -> None:
        self.grid.draw(page, x, y, room)
        top = y + self.grid.height + 0.25
        count = min(12, int((y + room - top - 0.3) / 0.19))
        if count < 1 or not self.scene["links"]:
            return
        page.text(x, top, "Strongest links", size=10, weight="bold")
        page.text(x, top + 0.16, "token, position ← what it looks at; weight; head (two of each)", size=7, colour=SOFT)
        links = self.scene["links"][:count]
        names = [read.head_name(self.scene, link["layer"], link["head"]) for link in links]
        room_for_pair = self.width - 0.5 - 0.056 * max(map(len, names))
        for nth, (link, name) in enumerate(zip(links, names, strict=True)):
            about = self.scene["layers"][link["layer"]]
            row, key = (
                f"{self.drawable(words.tag(self.scene['axes'][about[side]]['text'][link[slot]], 11))} {link[slot]}"
                for side, slot in (("query", "row"), ("key", "key"))
            )
            line = top + 0.4 + 0.19 * nth
            middle = x + 0.48 * room_for_pair
            page.text(middle - 0.1, line, row, ha="right")
            page.text(middle, line, "←", colour=SOFT, ha="center")
            page.text(middle + 0.1, line, key)
            page.text(x + room_for_pair + 0.4, line, f"{link['weight']:.3f}", ha="right")
            page.text(x + self.width, line, name, size=7, colour=SOFT, ha="right")


class HeadMap:
    """The heat map of a head, with token labels where they fit, and the tracks along its axes."""

    def __init__(self, scene: Scene, layer: int, head: int, why: str, drawable: Callable[[str], str]) -> None:
        self.scene, self.layer, self.head, self.drawable = scene, layer, head, drawable
        self.about = scene["layers"][layer]
        self.map = read.map_of(scene, layer, head)
        rows, keys = self.map.values.shape if self.map is not None else (1, 1)
        rows, keys = max(1, rows), max(1, keys)
        across = min(5.2, max(1.6, keys * 0.42))
        self.across = across
        self.down = min(across * min(1.3, max(0.3, rows / keys)), max(0.42, rows * 0.42))
        self.top = 0.22 + max([0.2, *(0.068 * len(text) for _, text in self._axis_labels("key", keys, across))])
        self.said = f"{self.about['kind']}-attention{', ' + why if why else ''}"
        self.width = max(LABEL + max(across, 3.3) + 0.12 + TRACK, 0.063 * len(self.said))
        self.wave = sound.room(scene, self.about["key"])
        self.height = TITLE + self.top + self.down + 0.1 + TRACK + self.wave + LEGEND + 0.12

    def draw(self, page: Page, x: float, y: float, room: float) -> None:
        name = read.head_name(self.scene, self.layer, self.head)
        page.text(x, y + 0.08, f"Head {name}", size=10, weight="bold")
        page.text(x, y + 0.24, self.said, colour=SOFT)
        if self.map is None or 0 in self.map.values.shape:
            page.text(x, y + 0.6, "no map: the overview was not watched, or there are no tokens", colour=SOFT)
            return
        left, top = x + LABEL, y + TITLE + self.top
        place, table, ticks, said = ramp_of(
            self.scene["signed"], self.map.values, self.scene["axes"][self.about["key"]]["length"]
        )
        cells = colour.of(table, place)
        seen = self.map.count > 0
        cells[~seen] = _bytes(SUNK)
        axes = page.axes(left, top, self.across, self.down)
        axes.imshow(cells, aspect="auto", interpolation="nearest")
        rows, keys = self.map.values.shape
        if min(self.across / keys, self.down / rows) > 0.12:
            gaps(axes, rows, keys)
        if self.across / keys >= 0.34 and self.down / rows >= 0.2:
            _numbers(axes, self.map.values, seen, cells, least=0.005)
        self._labels(page, left, top)
        self._tracks(page, left, top)
        sound.draw(page, self.scene, self.about["key"], left, top + self.down + 0.18 + TRACK, self.across, SOFT)
        below = top + self.down + 0.1 + TRACK + self.wave + 0.3
        page.legend(left, below, min(self.across, 3.2), table, ticks, f"{said}; grey: not visible to the query")
        page.text(left, below + 0.46, self._said(), size=7, colour=SOFT)

    def _said(self) -> str:
        assert self.map is not None
        if self.map.exact:
            return "queries down, keys across; each cell is one pair"
        return f"queries down, keys across; each cell is the largest of {self.map.cell[0]} × {self.map.cell[1]} pairs"

    def _labels(self, page: Page, left: float, top: float) -> None:
        assert self.map is not None
        rows, keys = self.map.values.shape
        for at, text in self._axis_labels("query", rows, self.down):
            page.text(left - 0.07, top + at, text, size=7, colour=SOFT, ha="right", va="center")
        for at, text in self._axis_labels("key", keys, self.across):
            page.text(left + at, top - 0.06, text, size=7, colour=SOFT, ha="center", va="bottom", rotation=90)

    def _axis_labels(self, side: str, cells: int, inches: float) -> list[tuple[float, str]]:
        """(inches along the axis, text): tokens where each has room, else slot numbers at round steps."""
        if self.map is None:
            return []
        axis = self.scene["axes"][self.about[side]]
        step, cell = inches / cells, self.map.cell[0 if side == "query" else 1]
        if cell == 1 and step >= 0.105 and cells <= TOKENS_AT_MOST:
            return [((i + 0.5) * step, self.drawable(words.tag(text, 14))) for i, text in enumerate(axis["text"])]
        if axis.get("seconds"):
            return sound.seconds(axis, inches * axis["length"] / (cells * cell))
        every = next(n for n in _round_numbers() if n * step / cell >= 0.35)
        return [((slot + 0.5) * step / cell, str(slot)) for slot in range(0, axis["length"], every)]

    def _tracks(self, page: Page, left: float, top: float) -> None:
        assert self.map is not None
        rows = self.about["rows"]
        reach = "±" if self.scene["signed"] else "0…"
        wanted = [label for label in (self.scene["statistic"], "entropy", *rows) if label in rows]
        lengths = [self.scene["axes"][self.about[side]]["length"] for side in ("query", "key")]
        spans = [n * c for n, c in zip(self.map.values.shape, self.map.cell, strict=True)]
        if wanted:
            axes = page.axes(left + self.across + 0.12, top, TRACK, self.down)
            edge = self._bars(axes, "rows", wanted[0], lengths[0], spans[0], vertical=True)
            page.text(left + self.across + 0.12, top - 0.19, self._title(wanted[0]), size=6.5, colour=SOFT)
            page.text(left + self.across + 0.12, top - 0.06, f"{reach}{words.number(edge)}", size=6.5, colour=SOFT)
        for label in list(self.about["keys"])[:1]:
            axes = page.axes(left, top + self.down + 0.1, self.across, TRACK)
            edge = self._bars(axes, "keys", label, lengths[1], spans[1], vertical=False)
            middle = top + self.down + 0.1 + TRACK / 2
            page.text(left - 0.07, middle, self._title(label), size=6.5, colour=SOFT, ha="right")
            page.text(left - 0.07, middle + 0.13, f"{reach}{words.number(edge)}", size=6.5, colour=SOFT, ha="right")

    def _title(self, label: str) -> str:
        title: str = next(about["title"] for about in self.scene["statistics"] if about["label"] == label)
        return title.removeprefix("attention ").removeprefix("mass on ")

    def _bars(self, axes: Any, part: str, label: str, length: int, span: int, vertical: bool) -> float:
        """Draw a track as bars along an axis of `span` slots; what the longest bar stands for."""
        found = read.track(self.scene, self.layer, self.head, part, label)
        assert found is not None
        values, band = found[0].astype(np.float64), found[1]
        edge = float(np.abs(values).max(initial=0.0)) or 1.0
        plus = POSITIVE if self.scene["signed"] else ACCENT
        axes.set_facecolor(SUNK)
        turned = "horizontal" if vertical else "vertical"
        for colour_of, some in ((plus, values.clip(min=0)), (ACCENT, (-values).clip(min=0))):
            edges = np.arange(len(values) + 1) * band
            axes.stairs(some / edge, edges, fill=True, color=colour_of, linewidth=0, orientation=turned)
        if length <= TOKENS_AT_MOST:
            between = axes.hlines if vertical else axes.vlines
            between(np.arange(band, length, band), 0, 1, color=SUNK, linewidth=1.2)
        if vertical:
            axes.set_xlim(0, 1)
            axes.set_ylim(span, 0)
        else:
            axes.set_ylim(1, 0)
            axes.set_xlim(0, span)
        axes.set_xticks([])
        axes.set_yticks([])
        return edge


def ramp_of(signed: bool, values: Any, keys: int) -> tuple[Any, colour.Table, list[tuple[float, str]], str]:
    """(place of each value, table, ticks, words): log10 for weights, a signed power for differences."""
    largest = float(np.abs(values).max(initial=0.0)) or 1.0
    if signed:
        ticks = [(0.0, words.number(-largest)), (0.5, "0"), (1.0, words.number(largest))]
        said = f"difference, power {colour.POWER}"
        return colour.signed_place(values, largest), colour.diverging(), ticks, said
    top = largest if largest > 1.0001 else 1.0
    floor = colour.floor_for(keys)
    decades = round(np.log10(1.0 / floor))
    span = np.log10(top / floor)
    ticks = [(n / span, f"{'≤ ' if n == 0 else ''}{floor * 10**n:g}") for n in range(decades + 1)]
    return colour.log_place(values, top, floor), colour.sequential(), ticks, "weight, log10"


def _numbers(axes: Any, values: Any, where: Any, cells: Any, least: float) -> None:
    for row, column in zip(*np.nonzero(where), strict=True):
        value = values[row, column]
        if abs(value) < least:
            continue
        ink = colour.ink_on([int(x) for x in cells[row, column]])
        text = words.two_places(value)
        style = {"fontsize": 6.5, "ha": "center", "va": "center", "color": tuple(x / 255 for x in ink)}
        axes.text(column, row, text, parse_math=False, **style)


def gaps(axes: Any, rows: int, columns: int) -> None:
    axes.hlines(np.arange(0.5, rows - 0.5), -0.5, columns - 0.5, color=PAPER, linewidth=0.8)
    axes.vlines(np.arange(0.5, columns - 0.5), -0.5, rows - 0.5, color=PAPER, linewidth=0.8)
    axes.set_xlim(-0.5, columns - 0.5)
    axes.set_ylim(rows - 0.5, -0.5)


def _bytes(hexadecimal: str) -> list[int]:
    return list(bytes.fromhex(hexadecimal[1:]))


def _round_numbers() -> Any:
    power = 1
    while True:
        yield from (power, 2 * power, 5 * power)
        power *= 10
