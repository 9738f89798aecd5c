"""Run one family of the census in a process of its own, with a limit of processor time."""

from __future__ import annotations

from typing import Any

from scripts.apart import Overran, apart


def run(family: str, every_class: bool, seconds: float) -> list[dict[str, Any]]:
    """The rows of a family. One that takes longer, or ends its process, is a row that says so."""
    try:
        return list(apart(_rows, family, every_class, seconds=seconds))
    except Overran as why:
        return [{"family": family, "model": "?", "problem": f"not run: {why}"}]


def _rows(family: str, every_class: bool) -> list[dict[str, Any]]:
    from scripts.census.compare import census_of
    from scripts.census.families import classes_of, plain_class

    kinds = classes_of(family) if every_class else [plain_class(family)]
    return [census_of(family, kind).as_json() for kind in kinds]
