"""An Explanation as an image: facts and pattern on top, the steps below, each matrix with its numbers."""

from __future__ import annotations

import io
import textwrap
import warnings
from dataclasses import dataclass

import numpy as np

from regard.explain import shade
from regard.explain.maths import mathtext
from regard.explain.record import Explanation, Panel, Step
from regard.view import colour, words
from regard.view.extras import needed
from regard.view.fonts import drawable, families
from regard.view.panels import PAPER, SOFT, Page

MARGIN, WIDTH, GAP = 0.4, 12.0, 0.4
CELL, ROW, LINE, LABEL = 0.4, 0.2, 0.17, 0.9
HEAD = 0.62
FLAG = 0.11


@dataclass(frozen=True)
class Block:
    """A panel of a step and the room it takes, in inches. first: whether the step's heading and equation stand above
    it; `equation` has its lines for every panel of the step, so that the matrices stand side by side."""

    number: int
    step: Step
    panel: Panel
    first: bool
    rows: list[str]
    columns: list[str]
    equation: list[str]

    @property
    def width(self) -> float:
        return max(_width(self.panel), 0.085 * len(self.heading) if self.first else 0.0)

    @property
    def heading(self) -> str:
        return f"{self.number}. {shade.title(self.step)}"

    @property
    def height(self) -> float:
        return HEAD + LINE * max(0, len(self.equation) - 1) + ROW * len(self.rows) + 0.25


def _width(panel: Panel) -> float:
    return max(1.8, LABEL + CELL * (len(panel.columns) + bool(shade.sums(panel))))


def _equation(step: Step) -> list[str]:
    """The lines of a step's equation, as wide as its panels side by side."""
    room = min(WIDTH - 2 * MARGIN, sum(_width(panel) + GAP for panel in step.panels) - GAP)
    return textwrap.wrap(step.equation, max(20, int(room / 0.078)))


def image(given: Explanation, kind: str = "png", *, dpi: int = 130) -> bytes:
    """The picture as the bytes of a png or svg file; the same explanation gives the same bytes."""
    matplotlib = needed("matplotlib", "drawing image files")
    texts = [given.title, given.line, *(t for _, t in shade.facts(given)), *(s.equation for s in given.steps)]
    texts += [t for s in given.steps for p in s.panels for t in (*p.rows, *p.columns)]
    fonts, missing = families([words.visible(text) for text in texts])
    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": "regard",
        "font.family": fonts,
        "font.size": 8,
        "axes.linewidth": 0,
        "text.parse_math": False,
        "mathtext.fontset": "dejavuserif",
    }
    empty = {"png": {"Software": None}, "svg": {"Date": None, "Creator": "regard"}}[kind]
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        page = _Drawing(given, set() if kind == "svg" else missing).draw()
        buffer = io.BytesIO()
        page.figure.savefig(buffer, format=kind, dpi=dpi, metadata=empty)
    return buffer.getvalue()


class _Drawing:
    """One page: measured first, then drawn."""

    def __init__(self, given: Explanation, missing: set[str]) -> None:
        self.given, self.missing = given, missing
        self.blocks = [self._block(n, s, p) for n, s in enumerate(given.steps, 1) for p in range(len(s.panels))]
        panels = [] if given.pattern is None else given.pattern.panels
        self.pattern_width = sum(FLAG * max(len(p.columns), 8) + 0.25 for p in panels)
        self.pattern_height = max([0.0, *(FLAG * len(p.rows) + 0.45 for p in panels)])
        room = WIDTH - 2 * MARGIN - self.pattern_width - (0.3 if panels else 0.0)
        self.beside = room > 5.0
        letters = int((room if self.beside else WIDTH - 2 * MARGIN) / 0.071) - 15
        self.facts = [(name, textwrap.wrap(words.visible(said), letters) or [""]) for name, said in shade.facts(given)]
        self.facts_height = LINE * sum(len(lines) for _, lines in self.facts)

    def _block(self, number: int, step: Step, place: int) -> Block:
        panel = step.panels[place]
        rows = [self.shown(words.tag(t, 11)) for t in panel.rows]
        columns = [self.shown(words.tag(t, 5)) for t in panel.columns]
        return Block(number, step, panel, place == 0, rows, columns, _equation(step))

    def shown(self, text: str) -> str:
        return drawable(words.visible(text), self.missing) if text else ""

    def draw(self) -> Page:
        """The figure, as tall as it needs to be."""
        from matplotlib.figure import Figure

        top = 0.95 + (max(self.facts_height, self.pattern_height) if self.beside else self.facts_height)
        top += 0.0 if self.beside else self.pattern_height + 0.1
        rows = _flowed(self.blocks, WIDTH - 2 * MARGIN)
        example = 0.62 if self.blocks else 0.0
        height = top + example + sum(max(b.height for b in row) for row in rows) + MARGIN
        page = Page(Figure(figsize=(WIDTH, height), facecolor=PAPER), WIDTH, height)
        self._heading(page)
        if self.given.pattern is not None:
            x = WIDTH - MARGIN - self.pattern_width + 0.25 if self.beside else MARGIN
            self._pattern(page, x, 0.95 if self.beside else 0.95 + self.facts_height + 0.1)
        if self.blocks:
            said = "Worked example: " + " ".join(self.shown(token) for token in self.given.tokens)
            page.text(MARGIN, top + 0.2, said, size=11, weight="bold")
            page.text(MARGIN, top + 0.4, self.given.about, size=7.5, colour=SOFT)
        y = top + example
        for row in rows:
            x = MARGIN
            for block in row:
                _matrix(page, block, x, y)
                x += block.width + GAP
            y += max(block.height for block in row)
        return page

    def _heading(self, page: Page) -> None:
        given = self.given
        page.text(MARGIN, 0.4, self.shown(given.title), size=15, weight="bold")
        page.text(MARGIN, 0.62, f"{given.family} · {self.shown(given.line)}", size=9, colour=SOFT)
        y = 0.92
        for name, lines in self.facts:
            page.text(MARGIN + 1.05, y, name, colour=SOFT, ha="right")
            for line in lines:
                (_maths if name == "equation" else Page.text)(page, MARGIN + 1.15, y, line)
                y += LINE

    def _pattern(self, page: Page, x: float, y: float) -> None:
        assert self.given.pattern is not None
        panels = self.given.pattern.panels
        lines = textwrap.wrap(shade.legend(panels), max(26, int(self.pattern_width / 0.075)))
        for panel in panels:
            page.text(x, y, self.shown(panel.title) or "what it can attend to", size=7, colour=SOFT)
            width, height = FLAG * len(panel.columns), FLAG * len(panel.rows)
            axes = page.axes(x, y + 0.06, width, height)
            cells = colour.of(shade.ramp(panel, True), np.nan_to_num(shade.places(panel)))
            cells[np.isnan(shade.places(panel))] = (241, 239, 235)
            axes.imshow(cells, aspect="auto", interpolation="nearest")
            x += FLAG * max(len(panel.columns), 8) + 0.25
        at = y + self.pattern_height - 0.25
        for place, line in enumerate(lines):
            page.text(x - self.pattern_width, at + 0.13 * place, line, size=6.5, colour=SOFT)


def _maths(page: Page, x: float, y: float, line: str, size: float = 9) -> None:
    """A line of an equation, set as mathematics where matplotlib can read it, else as it was typed."""
    from matplotlib.mathtext import MathTextParser

    said = mathtext(line)
    try:
        MathTextParser("path").parse(said)
    except ValueError:
        page.text(x, y, line)
    else:
        page.text(x, y, said, size=size, parse_math=True)


def _flowed(blocks: list[Block], room: float) -> list[list[Block]]:
    """Blocks in rows, left to right, as many as fit; a step's panels stay together where a row can hold them."""
    rows: list[list[Block]] = []
    used = 0.0
    for place, block in enumerate(blocks):
        together = sum(b.width + GAP for b in blocks[place:] if b.step is block.step) - GAP
        wanted = together if block.first and together <= room else block.width
        if not rows or used + wanted > room:
            rows.append([])
            used = 0.0
        rows[-1].append(block)
        used += block.width + GAP
    return rows


def _matrix(page: Page, block: Block, x: float, y: float) -> None:
    panel, sums = block.panel, shade.sums(block.panel)
    if block.first:
        page.text(x, y + 0.1, block.heading, size=9, weight="bold")
        for place, line in enumerate(block.equation):
            _maths(page, x, y + 0.27 + LINE * place, line, 8)
    top = y + HEAD + LINE * max(0, len(block.equation) - 1)
    left = x + LABEL
    if panel.title:
        page.text(x, top - 0.06, panel.title, size=6.5, colour=SOFT)
    for column, name in enumerate(block.columns):
        page.text(left + (column + 0.5) * CELL, top - 0.06, name, size=6.5, colour=SOFT, ha="center")
    if sums:
        page.text(left + (len(block.columns) + 0.5) * CELL, top - 0.06, "sum", size=6.5, colour=SOFT, ha="center")
    axes = page.axes(left, top, CELL * len(block.columns), ROW * len(block.rows))
    places, table = shade.places(panel), shade.ramp(panel, True)
    cells = colour.of(table, np.nan_to_num(places))
    cells[np.isnan(places)] = 255
    axes.imshow(cells, aspect="auto", interpolation="nearest")
    for row, name in enumerate(block.rows):
        base = top + (row + 0.68) * ROW
        page.text(left - 0.07, base, name, size=7, colour=SOFT, ha="right")
        for column, value in enumerate(panel.values[row]):
            place = places[row, column]
            ink = colour.ink_on((255, 255, 255) if np.isnan(place) else shade.rgb(table, place))
            middle, shown = left + (column + 0.5) * CELL, shade.shown(panel, value)
            page.text(middle, base, shown, size=6.5, colour="#{:02x}{:02x}{:02x}".format(*ink), ha="center")
        if sums:
            page.text(left + (len(block.columns) + 0.5) * CELL, base, sums[row], size=6.5, colour=SOFT, ha="center")
