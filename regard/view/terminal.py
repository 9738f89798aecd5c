"""The scene in a terminal: head grid, one head's heat map, the strongest links.

Token text comes from `words.visible`, so nothing in it can move the cursor or change a colour; rich drops colours for
NO_COLOR and for anything that is not a terminal, and then shades stand in for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from regard.seeing.trace import Trace
from regard.view import colour, read, words
from regard.view.extras import needed
from regard.view.scene import Scene

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

SHADES = "·░▒▓█"
MOST_LINES = 36
LABEL_WIDTH = 14
MOST_PIECES = 12


def show(
    given: Trace | Scene,
    console: Console | None = None,
    *,
    statistic: str | None = None,
    layer: int | None = None,
    head: int | None = None,
    links: int = 10,
) -> None:
    """Print head grid, heat map and strongest links. layer: by its place; by default the scene's pick is drawn.

    Raises TraceError for a statistic, layer or head that was not watched.
    """
    needed("rich", "drawing in the terminal")
    from rich.console import Console

    console = console or Console(highlight=False)
    for scene, name in zip(*read.scenes_of(given), strict=True):
        if name:
            console.print(_text((f"{name}  ", "bold reverse")), highlight=False, end=" ")
        _show(scene, console, statistic, layer, head, links)


def _show(
    scene: Scene, console: Console, statistic: str | None, layer: int | None, head: int | None, links: int
) -> None:
    coloured = console.color_system is not None and not console.no_color
    about = read.statistic(scene, statistic)
    parts = [heading(scene, console.width), answer_lines(scene, console.width)]
    if about is not None:
        parts.append(head_grid(scene, about, console.width, coloured))
    picked = read.chosen(scene, layer, head)
    if picked is not None:
        parts.append(heat_map(scene, *picked, console.width, coloured))
        parts.append(looked_at(scene, picked[0], picked[1], console.width))
    parts.append(strongest_links(scene, links, console.width))
    for part in parts:
        if part:
            console.print(part, highlight=False, soft_wrap=True)


def heading(scene: Scene, width: int) -> Text:
    """Model, sizes and how the trace was made."""
    name = _cut(words.visible(scene["model"] or "attention"), width)
    return _text((name, "bold"), (_cut(f"  {read.sizes(scene)}", max(1, width - _cells(name))) + "\n", "dim"))


def answer_lines(scene: Scene, width: int) -> Text:
    """What the model's head said, and what else it could have."""
    answer = scene.get("answer")
    if answer is None:
        return _text()
    out = _text()
    if answer["text"]:
        out.append("answer  ", "dim").append(_cut(answer["text"], width - 24), "bold")
        out.append("" if answer["confidence"] is None else f"  {answer['confidence']:.3f}").append("\n")
    others = ", ".join(_choice(choice) for choice in answer["choices"])
    for line in filter(None, (others, answer["note"])):
        out.append(_cut(f"        {line}", width) + "\n", "dim")
    return out


def _choice(choice: dict[str, Any]) -> str:
    number = choice["probability"] if choice["value"] is None else choice["value"]
    return f"{choice['text'].strip() or words.tag(choice['text'])} {number:.3f}"


def looked_at(scene: Scene, layer: int, head: int, width: int) -> Text:
    """What each piece of the answer looked at, by one head."""
    found = read.answer_looks(scene, layer, head, MOST_PIECES)
    if not found:
        return _text()
    keys = scene["axes"][scene["layers"][layer]["key"]]["text"]
    about = f"  by head {read.head_name(scene, layer, head)}"
    out = _text(("what the answer looked at", "bold"), (_cut(about, width - 25) + "\n", "dim"))
    room = max(_cells(words.tag(piece["text"], 16)) for piece, _ in found)
    for piece, links in found:
        line = "  ".join(f"{words.tag(keys[key], 12)} {weight:.2f}" for key, weight in links)
        out.append("  ").append(_fixed(words.tag(piece["text"], 16), room, right=True), "bold")
        out.append("" if piece["begin"] is None else f" {piece['begin']:6.2f} to {piece['end']:.2f} s")
        out.append(_cut(f" ← {line}", width - room - 2) + "\n")
    return out


def head_grid(scene: Scene, about: dict[str, Any], width: int, coloured: bool) -> Text:
    """One number per layer and head, wrapped into blocks of columns where the terminal is narrow."""
    grid = read.summary_grid(scene, about["label"])
    columns = read.head_columns(scene)
    names = [read.layer_name(scene, place) for place in range(len(scene["layers"]))]
    label = max([5, *(len(name) for name in names)])
    shown = [[_short(value) for value in row] for row in grid]
    cell = 2 + max([3, *(len(text) for row in shown for text in row), *(len(str(c)) for c in columns)])
    fit = max(1, (width - label - 1) // cell)
    said = f"  {about['formula']}  [{about['head_unit']}]"
    out = _text((f"{about['head_title']}", "bold"), (_cut(said, width - _cells(about["head_title"])) + "\n", "dim"))
    out.append("rows are layers, columns heads\n", "dim")
    for begin in range(0, len(columns), fit):
        part = slice(begin, begin + fit)
        out.append(f"{'head':>{label}} " + "".join(f"{c:^{cell}}" for c in columns[part]) + "\n", "dim")
        for name, values, texts in zip(names, grid[:, part], (row[part] for row in shown), strict=True):
            out.append(f"{name:>{label}} ", "dim")
            for value, text in zip(values, texts, strict=True):
                out.append(f"{text:^{cell}}", _grid_style(value, about, coloured))
            out.append("\n")
    return out


def _grid_style(value: float, about: dict[str, Any], coloured: bool) -> str:
    if not coloured or np.isnan(value):
        return ""
    signed = about["low"] < 0
    edge = max(-about["low"], about["high"])
    place = colour.even_place(np.array(value), -edge if signed else 0.0, edge)
    return _style(colour.of(colour.diverging(False) if signed else colour.sequential(False), place), text=True)


def heat_map(scene: Scene, layer: int, head: int, why: str, width: int, coloured: bool) -> Text:
    """The map of one head: labelled cells where they fit, else two rows to a line, joined by maximum where needed."""
    found = read.map_of(scene, layer, head)
    name = read.head_name(scene, layer, head)
    about = scene["layers"][layer]
    out = _text(
        (f"head {name}", "bold"), (_cut(f"  {about['kind']}-attention, {why}", width - 5 - _cells(name)) + "\n", "dim")
    )
    if found is None:
        return out.append("  no map: the overview was not watched\n", "dim")
    if 0 in found.values.shape:
        return out.append("  no map: there are no tokens\n", "dim")
    room = width - LABEL_WIDTH - 2
    rows, keys = found.values.shape
    if found.exact and rows <= MOST_LINES and keys * 2 <= room:
        out.append_text(_labelled(scene, about, found, room, coloured))
        said = "each cell is one pair"
    else:
        lines, columns = (MOST_LINES * 2, width - 4) if coloured else (MOST_LINES, (width - 4) // 2)
        found = read.pooled_to(found, lines, columns, largest=not scene["signed"])
        out.append_text(_half_blocks(scene, found) if coloured else _shaded(scene, found))
        how = "one pair" if found.exact else f"the largest of {found.cell[0]} × {found.cell[1]} pairs"
        said, sides = f"each cell is {how}", ", queries down, keys across"
        said += sides if _cells(said + sides) + 2 <= width else ""
    return out.append_text(_legend(scene, found, coloured)).append(f"  {said}\n", "dim")


def _labelled(scene: Scene, about: dict[str, Any], found: read.Map, room: int, coloured: bool) -> Text:
    queries, keys = ([words.tag(t) for t in scene["axes"][about[side]]["text"]] for side in ("query", "key"))
    cell = min(6, room // max(1, len(keys)))
    out = _text()
    if cell >= 5:
        out.append(" " * (LABEL_WIDTH + 1) + "".join(_fixed(key, cell - 1) + " " for key in keys) + "\n", "dim")
    else:
        tall = min(8, max(len(key) for key in keys))
        for line in range(tall):
            letters = (_fixed(key[line : line + 1] or " ", cell) for key in keys)
            out.append(" " * (LABEL_WIDTH + 1) + "".join(letters) + "\n", "dim")
    places, table = _places(scene, found)
    for query, values, allowed, row in zip(queries, found.values, found.count, places, strict=True):
        out.append(_fixed(query, LABEL_WIDTH, right=True) + " ", "dim")
        for value, some, place in zip(values, allowed, row, strict=True):
            if not some:
                out.append(" " * cell)
            elif coloured:
                text = f"{_short(value):^{cell}}" if cell >= 5 else " " * cell
                out.append(text, _style(colour.of(table, place), text=True))
            else:
                out.append(f"{_short(value):>{cell - 1}} " if cell >= 5 else _shade(place) * cell)
        out.append("\n")
    return out


def _places(scene: Scene, found: read.Map) -> tuple[Any, Any]:
    """Where each value lies on its ramp, and the ramp: log10 for weights, a signed power for differences."""
    if scene["signed"]:
        return colour.signed_place(found.values, _edge(found)), colour.diverging(False)
    return colour.log_place(np.abs(found.values)), colour.sequential(False)


def _edge(found: read.Map) -> float:
    return float(np.abs(found.values).max(initial=0.0)) or 1.0


def _half_blocks(scene: Scene, found: read.Map) -> Text:
    """Two rows to a line: ▀ in the upper row's colour on the lower row's."""
    places, ramp = _places(scene, found)
    table = colour.of(ramp, places)
    rows = found.values.shape[0]
    out = _text()
    for upper in range(0, rows, 2):
        out.append("  ")
        for column in range(found.values.shape[1]):
            top = _hex(table[upper, column]) if found.count[upper, column] else None
            below = upper + 1 < rows and found.count[upper + 1, column]
            low = _hex(table[upper + 1, column]) if below else None
            if top is None and low is None:
                out.append(" ")
            elif top is None:
                out.append("▄", f"{low}")
            else:
                out.append("▀", f"{top} on {low}" if low else top)
        out.append("\n")
    return out


def _shaded(scene: Scene, found: read.Map) -> Text:
    out = _text()
    for values, allowed in zip(_places(scene, found)[0], found.count, strict=True):
        cells = (_shade(place) * 2 if some else "  " for place, some in zip(values, allowed, strict=True))
        out.append("  " + "".join(cells).rstrip() + "\n")
    return out


def _shade(place: float) -> str:
    return SHADES[round(float(place) * (len(SHADES) - 1))]


def _legend(scene: Scene, found: read.Map, coloured: bool) -> Text:
    if scene["signed"]:
        edge = words.number(_edge(found))
        low, high, how, table = f"-{edge}", edge, f"difference, power {colour.POWER}", colour.diverging(False)
    else:
        low, high, how, table = f"{colour.LOG_FLOOR:g}", "1", "log10", colour.sequential(False)
    out = _text((f"  {'' if scene['signed'] else '≤ '}{low} ", "dim"))
    if coloured:
        for step in range(24):
            out.append(" ", _style(table[round(step * 255 / 23)]))
    else:
        out.append(SHADES)
    return out.append(f" {high}  {how}; blank: not visible to the query\n", "dim")


def strongest_links(scene: Scene, count: int, width: int) -> Text:
    """token ← token 0.62 (layer.head), strongest first."""
    links = scene["links"][:count]
    if not links:
        return _text()
    said = "  two of each head; without links to self, first and special tokens"
    out = _text(("strongest links", "bold"), (_cut(said, width - 15) + "\n", "dim"))
    room = max(8, min(26, (width - 34) // 2))
    ends = [
        [_end(scene, link, side, slot, room) for link in links] for side, slot in (("query", "row"), ("key", "key"))
    ]
    fits = [min(room, max(15, *map(_cells, column))) for column in ends]
    both = f"{_fixed('query, position', fits[0], right=True)} ← {_fixed('key, position', fits[1])}"
    out.append(_cut(f"  {both}  weight ({_where(scene)})", width) + "\n", "dim")
    for link, row, key in zip(links, *ends, strict=True):
        name = read.head_name(scene, link["layer"], link["head"])
        out.append(f"  {_fixed(row, fits[0], right=True)} ← {_fixed(key, fits[1])}  ")
        out.append(f"{link['weight']:.3f}", "bold").append(f"  ({name})\n", "dim")
    return out


def _where(scene: Scene) -> str:
    return "layer.head" if read.one_stack(scene) else "layer, head"


def _end(scene: Scene, link: dict[str, Any], side: str, slot: str, room: int) -> str:
    """One end of a link: its token and slot."""
    text = scene["axes"][scene["layers"][link["layer"]][side]]["text"][link[slot]]
    return f"{words.tag(text, room - 6)} {link[slot]}"


# ---- small things ---------------------------------------------------------------------------------------------------


def _text(*parts: tuple[str, str]) -> Text:
    from rich.text import Text

    return Text.assemble(*parts, no_wrap=True, overflow="crop", end="")


def _short(value: float) -> str:
    """A number for a cell; blank where there is none."""
    return "" if np.isnan(value) else words.two_places(value)


def _fixed(text: str, size: int, right: bool = False) -> str:
    """Text cut or filled to exactly `size` terminal cells."""
    from rich.cells import set_cell_size

    if _cells(text) > size:
        return set_cell_size(text, size - 1) + "…" if size > 1 else set_cell_size(text, size)
    fill = " " * (size - _cells(text))
    return fill + text if right else text + fill


def _cut(text: str, size: int) -> str:
    """Text of at most `size` terminal cells."""
    return text if _cells(text) <= size else _fixed(text, max(size, 1))


def _cells(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)


def _hex(rgb: Any) -> str:
    return "#{:02x}{:02x}{:02x}".format(*(int(x) for x in rgb))


def _style(rgb: Any, text: bool = False) -> str:
    ink = f"{_hex(colour.ink_on([int(x) for x in rgb]))} " if text else ""
    return f"{ink}on {_hex(rgb)}"
