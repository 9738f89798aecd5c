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
PANELS = (
    ("seconds", 1.0, "Time of one call", "seconds, median"),
    ("peak_bytes", 2.0**20, "Peak memory beyond the inputs", "MiB"),
)
STYLES = {  # regard's own are drawn through, its peers dashed
    "native": ("C1", "s-"),
    "native, all statistics": ("C4", "v-"),
    "statistics alone": ("C5", "<-"),
    "strips": ("C2", "D-"),
    "reference": ("C3", "^:"),
    "sdpa": ("C0", "o--"),
    "sdpa, causal": ("C0", "o--"),
    "flex, compiled": ("C6", ">--"),
    "eager": ("C7", "p--"),
}
OTHER = ("C8", "*-")


def sweeps(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Rows by family, shortest first, for the families that have at least two lengths."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["tokens"] is not None:
            found.setdefault(row["family"], []).append(row)
    return {family: sorted(own, key=lambda row: row["tokens"]) for family, own in found.items() if len(own) > 1}


def require_sweep(rows: list[dict[str, Any]]) -> None:
    """Raise UserError unless there is something to draw."""
    if not sweeps(rows):
        raise UserError("a plot needs two lengths of one kind; give such as --cases causal-512,causal-1024")


def plot(result: dict[str, Any], path: Path) -> None:
    """Draw every sweep of a result, a row of two panels each, as an image file."""
    from matplotlib.figure import Figure

    found = sweeps(result["rows"])
    figure = Figure(figsize=(13, 4.6 * len(found)), layout="constrained")
    lines: dict[str, Any] = {}
    for part, (family, rows) in zip(figure.subfigures(len(found), 1, squeeze=False)[:, 0], found.items()):
        part.suptitle(f"{TITLES.get(family, family)}; float32, {result['threads']} threads", fontsize=13)
        for axes, (field, unit, title, said) in zip(part.subplots(1, 2), PANELS):
            axes.set_title(title, fontsize=11)
            axes.set_ylabel(said)
            lines |= _panel(axes, rows, field, unit)
    figure.legend(lines.values(), lines.keys(), loc="outside right upper", frameon=False)
    figure.savefig(path, dpi=120)


def _panel(axes: Any, rows: list[dict[str, Any]], field: str, unit: float) -> dict[str, Any]:
    """Draw one panel; its lines by name."""
    from matplotlib.ticker import LogLocator, NullLocator

    points: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        for one in row["contestants"]:
            if one[field]:
                points.setdefault(one["name"], []).append((row["tokens"], one[field] / unit))
    lines = {}
    for name, own in points.items():
        colour, style = STYLES.get(name, OTHER)
        lines[name] = axes.plot(*zip(*own), style, color=colour, linewidth=2.0 if "--" not in style else 1.4)[0]
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    lengths = [row["tokens"] for row in rows]
    axes.set_xticks(lengths, [f"{length:,}" for length in lengths])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=20))
    axes.yaxis.set_major_formatter("{x:,g}")
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("tokens")
    axes.grid(alpha=0.3)
    return lines
