"""An Explanation in a terminal. rich drops colours for NO_COLOR and for anything that is no terminal."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING

from regard.explain import shade
from regard.explain.build import listing
from regard.explain.record import Explanation, Panel, Step
from regard.view import colour, words
from regard.view.extras import needed

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

CELL = 6
LABEL = 14
BLOCKS = {0.0: "· ", 1.0: "░░", 2.0: "██"}


def show(given: Explanation, console: Console | None = None) -> None:
    """Print facts, pattern, parts and every step with its matrix."""
    console, coloured = _console(console)
    width = max(60, console.width)
    for part in (heading(given, width), pattern(given, width), parts(given, width)):
        console.print(part, highlight=False, soft_wrap=True)
    if given.steps:
        about = f"Worked example: {' '.join(words.visible(token) for token in given.tokens)}"
        console.print(_text((about, "bold"), (f"\n{_wrapped(given.about, width)}\n", "dim")), soft_wrap=True)
    for number, step in enumerate(given.steps, 1):
        console.print(of_step(number, step, width, coloured), highlight=False, soft_wrap=True)


def catalogue(console: Console | None = None) -> None:
    """Print every mechanism by family, one line each: as wide as a terminal is, and whole where it is none."""
    console, _ = _console(console)
    room = max(30, console.width - 23) if console.is_terminal else 200
    out = _text()
    for family, entries in listing():
        out.append(f"{family}\n", "bold")
        for name, line in entries:
            out.append(f"  {name:<20}", "cyan").append(f"{words.tag(line, room)}\n")
    out.append("\nregard explain NAME [TEXT] explains one; text forms compose: ", "dim")
    console.print(out.append('regard explain "causal & window(4) | sinks(1)"\n'), highlight=False, soft_wrap=True)


def heading(given: Explanation, width: int) -> Text:
    """Title, one line, and the facts."""
    out = _text((given.title, "bold"), (f"  {given.family}\n", "dim"), (f"{given.line}\n\n", ""))
    for name, said in shade.facts(given):
        lines = textwrap.wrap(said, width - 18) or [""]
        out.append(f"{name:>15}  ", "dim").append("\n                 ".join(lines) + "\n")
    return out


def pattern(given: Explanation, width: int) -> Text:
    """Which pairs are read, two characters to a pair, as many heads side by side as fit."""
    if given.pattern is None:
        return _text()
    out = _text(("\nWhat it can attend to", "bold"), (f"  {shade.legend(given.pattern.panels)}\n", "dim"))
    per_line = max(1, width // (2 * max(len(panel.columns) for panel in given.pattern.panels) + 4))
    panels = given.pattern.panels
    for begin in range(0, len(panels), per_line):
        beside = panels[begin : begin + per_line]
        widths = [max(2 * len(panel.columns), len(panel.title)) for panel in beside]
        if any(panel.title for panel in beside):
            out.append("  " + "    ".join(f"{panel.title:<{w}}" for panel, w in zip(beside, widths)) + "\n", "dim")
        for row in range(max(len(panel.rows) for panel in beside)):
            cut = (_blocks(panel, row).ljust(w) for panel, w in zip(beside, widths))
            out.append("  " + "    ".join(cut).rstrip() + "\n")
    return out


def _blocks(panel: Panel, row: int) -> str:
    return "".join(BLOCKS[value or 0.0] for value in panel.values[row]) if row < len(panel.rows) else ""


def parts(given: Explanation, width: int) -> Text:
    """The composition, a part per line."""
    if not given.parts:
        return _text()
    out = _text(("Parts\n", "bold"))
    for part in given.parts:
        said = f"{part.name}: {part.meaning}" if part.meaning and part.meaning != part.name else part.name
        lines = textwrap.wrap(said, width - 18)
        out.append(f"{part.slot:>15}  ", "dim").append("\n                 ".join(lines) + "\n")
    return out


def of_step(number: int, step: Step, width: int, coloured: bool) -> Text:
    """Name, equation and the matrices of one step."""
    out = _text((f"{number}. {shade.title(step)}", "bold"), (f"  {step.shape}\n", "dim"))
    if step.equation:
        out.append(f"   {_wrapped(step.equation, width, 3)}\n", "italic")
    for panel in step.panels:
        out.append_text(matrix(panel, width, coloured))
    if step.said:
        out.append(f"   {_wrapped(step.said, width, 3)}\n", "dim")
    return out


def matrix(panel: Panel, width: int, coloured: bool) -> Text:
    """Labelled cells; columns beyond the width go to further blocks."""
    out = _text((f"   {panel.title}\n" if panel.title else "", "dim"))
    places, table, sums = shade.places(panel), shade.ramp(panel, light=False), shade.sums(panel)
    fit = max(1, (width - LABEL - 8) // CELL)
    for begin in range(0, len(panel.columns), fit):
        columns = range(begin, min(begin + fit, len(panel.columns)))
        last = columns.stop == len(panel.columns)
        head = "".join(_fixed(words.tag(panel.columns[c]), CELL - 1, True) + " " for c in columns)
        out.append(" " * (LABEL + 1) + head + ("  sum" if sums and last else "") + "\n", "dim")
        for place, name in enumerate(panel.rows):
            out.append(_fixed(words.tag(name), LABEL, True) + " ", "dim")
            for c in columns:
                text = f"{shade.shown(panel, panel.values[place][c]):>{CELL - 1}} "
                hidden = math.isnan(places[place, c])
                out.append(text, _style(table, places[place, c]) if coloured and not hidden else "")
            out.append(f" {sums[place]:>4}\n" if sums and last else "\n", "dim")
    return out


def _style(table: colour.Table, place: float) -> str:
    rgb = shade.rgb(table, place)
    return f"{_hex(colour.ink_on(rgb))} on {_hex(rgb)}"


def _hex(rgb: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*rgb)


def _wrapped(text: str, width: int, indent: int = 0) -> str:
    return ("\n" + " " * indent).join(textwrap.wrap(text, width - indent))


def _fixed(text: str, size: int, right: bool = False) -> str:
    """Text cut or filled to exactly `size` terminal cells."""
    from rich.cells import cell_len, set_cell_size

    if cell_len(text) > size:
        return set_cell_size(text, size - 1) + "…"
    fill = " " * (size - cell_len(text))
    return fill + text if right else text + fill


def _console(console: Console | None) -> tuple[Console, bool]:
    needed("rich", "explaining in the terminal")
    from rich.console import Console

    console = console or Console(highlight=False)
    return console, console.color_system is not None and not console.no_color


def _text(*parts: tuple[str, str]) -> Text:
    from rich.text import Text

    return Text.assemble(*parts, no_wrap=True, overflow="crop", end="")
