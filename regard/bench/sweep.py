"""A sweep over lengths as a picture: seconds and peak extra memory against the number of tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from regard.errors import UserError

TITLES = {
    "causal": "Causal attention, 12 heads of 64",
    "window": "A window of 1,024 with 4 sinks, 12 heads of 64",
    "backward": "Causal attention forward and backward, 12 heads of 64",
}
PANELS = (("seconds", 1.0, "seconds, median"), ("peak_bytes", 2.0**20, "MiB at the peak, beyond the inputs"))
MARKERS = "osD^v<>ph"


def sweeps(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Rows by family, shortest first, for the families that have at least two lengths."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in sorted((row for row in rows if row["tokens"] is not None), key=lambda row: row["tokens"]):
        found.setdefault(row["family"], []).append(row)
    return {family: rows for family, rows in found.items() if len(rows) > 1}


def require_sweep(rows: list[dict[str, Any]]) -> None:
    """Raise UserError unless there is something to draw."""
    if not sweeps(rows):
        raise UserError("a plot needs two lengths of one kind; give such as --cases causal-512,causal-1024")


def plot(result: dict[str, Any], path: Path) -> None:
    """Draw every sweep of a result, a row of two panels each, as an image file."""
    from matplotlib.figure import Figure

    found = sweeps(result["rows"])
    figure = Figure(figsize=(12, 4.6 * len(found)), layout="constrained")
    for part, (family, rows) in zip(figure.subfigures(len(found), 1, squeeze=False)[:, 0], found.items()):
        part.suptitle(f"{TITLES.get(family, family)}; {result['threads']} threads", fontsize=12)
        left, right = part.subplots(1, 2)
        for axes, (field, unit, said) in zip((left, right), PANELS):
            _panel(axes, rows, field, unit, said)
        part.legend(*left.get_legend_handles_labels(), loc="outside right upper", frameon=False)
    figure.savefig(path, dpi=120)


def _panel(axes: Any, rows: list[dict[str, Any]], field: str, unit: float, said: str) -> None:
    names = list(dict.fromkeys(one["name"] for row in rows for one in row["contestants"]))
    for place, name in enumerate(names):
        points = [
            (row["tokens"], one[field] / unit)
            for row in rows
            for one in row["contestants"]
            if one["name"] == name and one[field]
        ]
        own = name.startswith(("native", "strips", "statistics"))
        line = {"linewidth": 2.0 if own else 1.3, "linestyle": "-" if own else "--"}
        axes.plot(*zip(*points) if points else ((), ()), marker=MARKERS[place % len(MARKERS)], label=name, **line)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    lengths = [row["tokens"] for row in rows]
    axes.set_xticks(lengths, [f"{length:,}" for length in lengths])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("tokens")
    axes.set_ylabel(said)
    axes.grid(alpha=0.3)
