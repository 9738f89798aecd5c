"""How the cells of a panel are coloured and written: one rule for terminal, page and image."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from regard.explain.record import Explanation, Panel, Step
from regard.view import colour, words


def places(panel: Panel) -> NDArray[np.float64]:
    """Where each cell lies on its ramp, 0 to 1; NaN for a hidden pair."""
    values = array(panel)
    if panel.kind == "flags":
        return np.where(values == 0, np.nan, np.where(values == 1, 0.3, 0.85))
    if panel.kind == "weights":
        return np.where(np.isnan(values), np.nan, colour.power_place(np.nan_to_num(values), 1.0, 0.7))
    edge = float(np.nanmax(np.abs(values), initial=0.0)) or 1.0
    return np.where(np.isnan(values), np.nan, colour.signed_place(np.nan_to_num(values), edge, 0.8))


def array(panel: Panel) -> NDArray[np.float64]:
    """The values [rows, columns], NaN where a pair is hidden."""
    found = [[np.nan if value is None else value for value in row] for row in panel.values]
    return np.array(found, dtype=np.float64).reshape(len(panel.rows), len(panel.columns))


def ramp(panel: Panel, light: bool) -> colour.Table:
    """The colour table that a panel's places point into."""
    return table("sequential" if panel.kind in ("weights", "flags") else "diverging", light)


@lru_cache(maxsize=4)
def table(kind: str, light: bool) -> colour.Table:
    """One of view's tables, computed once."""
    return colour.sequential(light) if kind == "sequential" else colour.diverging(light)


def written(value: float | None) -> str:
    """A cell's number in at most five characters; nothing for a hidden pair."""
    if value is None:
        return ""
    if abs(value) >= 1000:
        return f"{value:.0e}".replace("e+0", "e").replace("e-0", "e-")
    text = words.two_places(value)
    return text if not text.startswith("-0.00") else "0.00"


def shown(panel: Panel, value: float | None) -> str:
    """What stands in a cell: its number, or for a flag a mark where it is set."""
    if panel.kind == "flags":
        return "●" if value else ""
    return written(value)


def rgb(table: colour.Table, place: float) -> tuple[int, int, int]:
    """The colour at a place 0 to 1 of a table, as plain bytes."""
    red, green, blue = (int(part) for part in table[round(float(place) * 255)])
    return red, green, blue


def sums(panel: Panel) -> list[str]:
    """The sum of each row, for panels of weights; nothing for others."""
    if panel.kind not in ("weights", "signed") or not panel.values or panel.turned:
        return []
    return [written(sum(value or 0.0 for value in row)) for row in panel.values]


def _set(settings: str | None) -> str:
    return f" ({settings})" if settings else ""


def facts(given: Explanation) -> list[tuple[str, str]]:
    """Equation, source, costs and what it attends to, as (name, text)."""
    found = [("equation", given.equation), ("source", given.source)]
    found += [(name, said) for name, said in (("use it when", given.when), ("used by", given.models)) if said]
    found += [("time", given.time), ("memory", given.memory), ("attends to", given.attends)]
    if given.pairs:
        said = ", ".join(f"{count:,} at n = {n:,}{_set(given.settings.get(n))}" for n, count in given.pairs)
        found.append(("pairs read", f"{said}, per head"))
    found += [("parameter", f"{name}  {said}") for name, said in given.parameters.items()]
    if given.home:
        found.append(("module", given.home))
    if given.refused:
        found.append(("not a mechanism", given.refused))
    if given.unobservable:
        found.append(("no weights", given.unobservable))
    return found


def legend(panels: list[Panel]) -> str:
    """What strong, faint and blank cells of a pattern mean, as far as they occur."""
    seen = {value for panel in panels for row in panel.values for value in row if value is not None}
    said = {2.0: "strong: read", 1.0: "faint: visible, no weight", 0.0: "blank: hidden"}
    way = "keys down, queries across; " if any(panel.turned for panel in panels) else "queries down, keys across; "
    return way + ", ".join(text for value, text in said.items() if value in seen)


def title(step: Step) -> str:
    """A step's name as a heading."""
    return step.name[:1].upper() + step.name[1:]
