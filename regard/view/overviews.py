"""Panels that show several heads at once: a small map of every head, and lines between two columns of tokens."""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Sequence

import numpy as np

from regard.view import colour, read, words
from regard.view.panels import INK, SOFT, SUNK, TITLE, Page, ramp_of
from regard.view.scene import Scene

SMALL, SIDE = 64, (0.28, 0.95)  # cells of a small map; inches a side, least and most
LEAST, MOST_LINES = 0.02, 6000
HUES = (252, 28, 150, 330, 200, 85, 0, 290, 175, 55, 225, 120)


class SmallMaps:
    """The map of every head, layers down and heads across, all on one scale."""

    def __init__(self, scene: Scene, drawable: Callable[[str], str]) -> None:
        self.scene = scene
        self.columns = read.head_columns(scene)
        self.names = [drawable(read.layer_name(scene, place)) for place in range(len(scene["layers"]))]
        self.side = min(SIDE[1], max(SIDE[0], 9.0 / max(1, len(self.columns))))
        self.label = 0.16 + 0.062 * max([5, *(len(name) for name in self.names)])
        self.width = self.label + len(self.columns) * self.side
        self.height = TITLE + 0.2 + len(self.names) * self.side + 0.75

    def draw(self, page: Page, x: float, y: float, room: float) -> None:
        page.text(x, y + 0.08, "All heads", size=10, weight="bold")
        page.text(x, y + 0.24, "each a map: queries down, keys across; layers down, heads across", colour=SOFT)
        left, top, gap = x + self.label, y + TITLE + 0.2, 0.05 * self.side
        for column, head in enumerate(self.columns):
            page.text(left + (column + 0.5) * self.side, top - 0.06, str(head), size=7, colour=SOFT, ha="center")
        scale = None
        for place, layer in enumerate(self.scene["layers"]):
            middle = top + (place + 0.5) * self.side + 0.03
            page.text(left - 0.07, middle, self.names[place], size=7, colour=SOFT, ha="right")
            for head in layer["heads"]:
                at = (left + self.columns.index(head) * self.side, top + place * self.side)
                scale = self._small(page, place, head, *at, self.side - gap) or scale
        if scale is not None:
            table, ticks, said = scale
            below = top + len(self.names) * self.side + 0.25
            page.legend(x + self.label, below, min(self.width, 2.6), table, ticks, said)

    def _small(self, page: Page, place: int, head: int, x: float, y: float, side: float) -> tuple | None:
        found = read.map_of(self.scene, place, head)
        if found is None or 0 in found.values.shape:
            return None
        found = read.pooled_to(found, SMALL, SMALL, largest=not self.scene["signed"])
        keys = self.scene["axes"][self.scene["layers"][place]["key"]]["length"]
        at, table, ticks, said = ramp_of(self.scene["signed"], found.values, keys)
        cells = colour.of(table, at)
        cells[found.count == 0] = list(bytes.fromhex(SUNK[1:]))
        page.axes(x, y, side, side).imshow(cells, aspect="auto", interpolation="nearest")
        return table, ticks, said


class Lines:
    """Heads of one layer as lines from queries (left) to keys (right): as wide and as dark as the weight."""

    def __init__(self, scene: Scene, layer: int, heads: Sequence[int], drawable: Callable[[str], str]) -> None:
        self.scene, self.layer, self.heads, self.drawable = scene, layer, list(heads), drawable
        about = scene["layers"][layer]
        self.texts = [
            [drawable(words.tag(text, 16)) for text in scene["axes"][about[side]]["text"]] for side in ("query", "key")
        ]
        self.step = 0.17 if max(map(len, self.texts)) <= 150 else 0.12
        self.width = 6.4
        self.height = TITLE + 0.62 + self.step * max(map(len, self.texts)) + 0.2

    def draw(self, page: Page, x: float, y: float, room: float) -> None:
        names = [read.head_name(self.scene, self.layer, head) for head in self.heads]
        page.text(x, y + 0.08, f"Head {names[0]}" if len(names) == 1 else "Heads", size=10, weight="bold")
        at = x + 0.7
        for name, shade in zip(names, self._colours(), strict=True) if len(names) > 1 else ():
            page.text(at, y + 0.08, name, size=9, colour=shade, weight="bold")
            at += 0.16 + 0.085 * len(name)
        said, links = self._links()
        page.text(x, y + 0.26, said, colour=SOFT, size=7)
        left, right, top = x + 1.35, x + self.width - 1.35, y + TITLE + 0.3
        page.text(left - 0.08, top - 0.08, "query: looks", size=7, colour=SOFT, ha="right")
        page.text(right + 0.08, top - 0.08, "key: is looked at", size=7, colour=SOFT)
        for side, edge, where in ((0, left - 0.08, "right"), (1, right + 0.08, "left")):
            for slot, text in enumerate(self.texts[side]):
                page.text(edge, top + (slot + 0.5) * self.step + 0.03, text, size=7, colour=INK, ha=where)
        self._strokes(page, left, right, top, links)

    def _colours(self) -> list[str]:
        return [_hue(head if len(self.heads) > 1 else 0) for head in self.heads]

    def _strokes(self, page: Page, left: float, right: float, top: float, links: np.ndarray) -> None:
        from matplotlib.collections import LineCollection

        down = self.step * max(map(len, self.texts))
        axes = page.axes(left, top, right - left, down)
        axes.set_xlim(0, 1)
        axes.set_ylim(down / self.step, 0)
        axes.patch.set_alpha(0)
        ends = [[(0.0, row + 0.5), (1.0, key + 0.5)] for _, row, key, _ in links]
        shades = [(*_rgb(self._colours()[int(nth)]), 0.05 + 0.95 * min(1.0, weight)) for nth, _, _, weight in links]
        axes.add_collection(LineCollection(ends, colors=shades, linewidths=0.4 + 1.8 * links[:, 3]))

    def _links(self) -> tuple[str, np.ndarray]:
        """What is drawn, in words, and [links, (place of the head, row, key, weight)], lightest first."""
        rows, whole = [], True
        for nth, head in enumerate(self.heads):
            found = read.map_of(self.scene, self.layer, head)
            if found is not None and found.exact:
                at = np.argwhere(found.values >= LEAST)
                rows.append(np.column_stack([np.full(len(at), nth), at, found.values[tuple(at.T)]]))
                continue
            whole = False
            rows.append(_strongest(self.scene, self.layer, head, nth))
        links = np.concatenate(rows) if rows else np.zeros((0, 4))
        links = links[np.argsort(links[:, 3], kind="stable")][-MOST_LINES:]
        kind = "every weight" if whole else "of the strongest links of each row, those"
        return f"{kind} of at least {LEAST}; wider and darker is more", links


def _strongest(scene: Scene, layer: int, head: int, nth: int) -> np.ndarray:
    """The links of each row that the scene keeps, as rows of `_links`."""
    top = scene["layers"][layer]["tops"].get("top")
    if top is None or top["band"] != 1:
        return np.zeros((0, 4))
    place = read.head_place(scene, layer, head)
    weights, keys = (read.load(scene["arrays"], top[name])[place] for name in ("weights", "keys"))
    row, kept = np.nonzero(weights >= LEAST)
    return np.column_stack([np.full(len(row), nth), row, keys[row, kept], weights[row, kept]])


def _hue(head: int) -> str:
    red, green, blue = _rgb_of(HUES[head % len(HUES)], 0.42, 0.75 if head % 24 < 12 else 0.45)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"


def _rgb_of(hue: int, lightness: float, saturation: float) -> tuple[float, float, float]:
    return colorsys.hls_to_rgb(hue / 360, lightness, saturation)


def _rgb(text: str) -> tuple[float, ...]:
    return tuple(part / 255 for part in bytes.fromhex(text[1:]))
