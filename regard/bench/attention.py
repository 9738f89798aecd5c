"""`regard bench attention`: every backend against torch SDPA, compiled FlexAttention and the eager form, in one run.

Each contestant of a case is held to float64 before the case is timed; one that is wrong ends the run. Contestants are
timed in turn and reported as the median of their ratio to the case's peer in the same turn.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from regard.bench.cases import named
from regard.bench.cases.case import Recipe, check
from regard.bench.contestant import peak_bytes
from regard.bench.machine import describe
from regard.bench.sweep import plot, require_sweep
from regard.bench.timing import timed
from regard.errors import UserError
from regard.run import native

__all__ = ["plot", "run", "table"]

BUDGET_SECONDS = 30.0


def run(
    names: list[str] | None,
    repeats: int,
    memory: bool = False,
    sweep: bool = False,
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Time the named cases, up to `repeats` turns each; None: all that are not long.

    memory: also each contestant's peak in a process of its own, for the cases of a sweep. sweep: refuse before
    anything is timed if there would be nothing to plot. Raises UserError for an unknown name, a result that is not
    exact, or no native core.
    """
    recipes = named(names)
    if sweep:
        require_sweep([{"family": r.family, "tokens": r.tokens} for r in recipes.values()])
    if repeats < 1:
        raise UserError(f"--repeats is at least 1, got {repeats}; give a larger number")
    if not native.available():
        raise UserError(f"nothing to compare: {native.why_unavailable()}")
    rows = []
    peak = partial(peak_bytes, report=report)
    for name, recipe in recipes.items():
        rows.append(_row(name, recipe, repeats, peak if memory and recipe.tokens is not None else None))
        report("\n".join([f"{name}: {rows[-1]['note']}", *("  ".join(line) for line in _lines(rows[-1]))]))
    return {"machine": describe(), "isa": native.isa(), "threads": torch.get_num_threads(), "rows": rows}


@torch.no_grad()
def _row(name: str, recipe: Recipe, repeats: int, peak: Callable[[str, str], int | None] | None) -> dict[str, Any]:
    case = recipe.make()
    errors = check(name, case)
    times = timed(case, repeats, BUDGET_SECONDS)
    contestants = [
        {
            "name": who,
            "seconds": times.typical(who),
            "ratio": times.ratio(who, case.peer),
            "also": {peer: times.ratio(who, peer) for one, peer in case.also if one == who},
            "error": errors[who],
            "peak_bytes": None if peak is None else peak(name, who),
        }
        for who in case.contestants
    ]
    return {
        "case": name,
        "family": recipe.family,
        "tokens": recipe.tokens,
        "peer": case.peer,
        "note": case.note,
        "turns": times.turns,
        "contestants": contestants,
    }


def table(result: dict[str, Any]) -> list[list[str]]:
    """Header and rows as text: milliseconds, ratios to the case's peer and to others, error, peak memory."""
    head = ["case", "contestant", "ms", "× peer", "peer", "also", "error", "peak MiB", "turns"]
    return [head, *(line for row in result["rows"] for line in _lines(row))]


def _lines(row: dict[str, Any]) -> list[list[str]]:
    return [
        [
            row["case"],
            one["name"],
            f"{one['seconds'] * 1e3:.1f}",
            f"{one['ratio']:.2f}",
            row["peer"],
            ", ".join(f"{ratio:.2f} × {peer}" for peer, ratio in one["also"].items()),
            "" if one["error"] is None else f"{one['error']:.1e}",
            "" if one["peak_bytes"] is None else f"{one['peak_bytes'] / 2**20:.0f}",
            str(row["turns"]),
        ]
        for one in row["contestants"]
    ]
