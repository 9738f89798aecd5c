"""Where a head looks on an image: over the whole picture, and for each word that the model wrote about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from regard.view import colour, read, words
from regard.view.panels import SOFT, TITLE, Page, gaps
from regard.view.scene import Scene

SIDE, SMALL, BETWEEN = 2.0, 1.1, 0.16  # inches: of a picture, of a small one, between small ones
COLUMNS, LARGEST = 4, 16  # small pictures side by side, and in all


class Patches:
    """Where a head looks on an image: what each patch receives, and what the token before the patches looks at."""

    def __init__(self, scene: Scene, layer: int, head: int, drawable: Callable[[str], str]) -> None:
        self.scene, self.drawable = scene, drawable
        axis = scene["axes"][scene["layers"][layer]["key"]]
        rows, columns = axis["grid"]
        lead = axis["length"] - rows * columns
        self.pictures: list[tuple[str, Any]] = []
        received = read.track(scene, layer, head, "keys", "received")
        if received is not None and received[1] == 1:
            self.pictures.append(("received by each patch", received[0][lead:].reshape(rows, columns)))
        found = read.map_of(scene, layer, head)
        if (
            lead
            and found is not None
            and found.exact
            and scene["layers"][layer]["query"] == scene["layers"][layer]["key"]
        ):
            first = drawable(words.tag(axis["text"][0], 20))
            self.pictures.append((f"where {first} looks", found.values[0, lead:].reshape(rows, columns)))
        self.under = read.picture(scene, scene["layers"][layer]["key"])
        self.down = SIDE * rows / columns
        self.width = SIDE
        self.height = TITLE + len(self.pictures) * (self.down + 0.95)

    def draw(self, page: Page, x: float, y: float, room: float) -> None:
        page.text(x, y + 0.08, "On the image", size=10, weight="bold")
        top = y + TITLE + 0.1
        for said, values in self.pictures:
            page.text(x, top, said, colour=SOFT)
            edge = float(np.abs(values).max(initial=0.0)) or 1.0
            signed = self.scene["signed"]
            table = colour.diverging() if signed else colour.sequential()
            place = colour.even_place(values, -edge if signed else 0.0, edge)
            axes = page.axes(x, top + 0.08, SIDE, self.down)
            over(axes, self.under, colour.of(table, place), place)
            ticks = [(0.0, words.number(-edge) if signed else "0"), (1.0, words.number(edge))]
            page.legend(x, top + self.down + 0.24, SIDE, table, ticks, "even scale")
            top += self.down + 0.95


class ByWord:
    """The picture once for each piece of the answer, with what the row that decided it looks at."""

    def __init__(self, scene: Scene, layer: int, head: int, drawable: Callable[[str], str]) -> None:
        about, answer = scene["layers"][layer], scene.get("answer")
        axis = scene["axes"][about["key"]]
        rows, columns = axis["grid"]
        lead = axis["length"] - rows * columns
        found = read.map_of(scene, layer, head)
        self.pictures: list[tuple[str, Any]] = []
        if answer and answer["axis"] == about["query"] != about["key"] and found is not None and found.exact:
            self.pictures = [
                (
                    drawable(words.tag(piece["text"].strip(), 14)),
                    found.values[piece["slot"], lead:].reshape(rows, columns),
                )
                for piece in answer["pieces"][:LARGEST]
                if piece["slot"] is not None
            ]
        self.under = read.picture(scene, about["key"])
        self.down = SMALL * rows / columns
        self.width = COLUMNS * (SMALL + BETWEEN) - BETWEEN
        self.height = TITLE + -(-len(self.pictures) // COLUMNS) * (self.down + 0.3) + 0.5

    def draw(self, page: Page, x: float, y: float, room: float) -> None:
        page.text(x, y + 0.08, "Word by word", size=10, weight="bold")
        table, top = colour.sequential(), y + TITLE + 0.1
        edge = max(float(values.max()) for _, values in self.pictures) or 1.0
        for number, (said, values) in enumerate(self.pictures):
            left = x + number % COLUMNS * (SMALL + BETWEEN)
            if number and number % COLUMNS == 0:
                top += self.down + 0.3
            page.text(left, top, said, colour=SOFT)
            place = colour.even_place(values, 0.0, edge)
            over(page.axes(left, top + 0.08, SMALL, self.down), self.under, colour.of(table, place), place)
        ticks = [(0.0, "0"), (1.0, words.number(edge))]
        page.legend(x, top + self.down + 0.24, SIDE, table, ticks, "weight, even scale")


def over(axes: Any, picture: Any, cells: Any, place: Any) -> None:
    """Coloured patches; over their picture, the less a patch weighs the clearer the picture."""
    rows, columns = place.shape
    if picture is None:
        axes.imshow(cells, aspect="auto", interpolation="nearest")
        return gaps(axes, rows, columns)
    whole = (-0.5, columns - 0.5, rows - 0.5, -0.5)
    axes.imshow(picture, aspect="auto", extent=whole)
    veil = np.concatenate([cells / 255, (0.3 + 0.4 * place.clip(0, 1))[..., None]], -1)
    axes.imshow(veil, aspect="auto", interpolation="nearest", extent=whole)
    axes.set_xlim(-0.5, columns - 0.5)
    axes.set_ylim(rows - 0.5, -0.5)
