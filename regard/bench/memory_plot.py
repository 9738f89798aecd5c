"""The picture of `regard bench memory`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from regard.bench.memory_worker import DENSE
from regard.zoo import card

MIB = 2.0**20


def plot(result: dict[str, Any], path: Path) -> None:
    """Peak memory against the number of tokens, a panel per family, all weights at once beside it, as an image file."""
    from matplotlib.figure import Figure

    families: dict[str, list[dict[str, Any]]] = {}
    for row in result["rows"]:
        if row["mechanism"] != DENSE:
            families.setdefault(card(row["mechanism"]).family, []).append(row)
    dense = next((_points(row) for row in result["rows"] if row["mechanism"] == DENSE), [])
    columns = 3
    lines = -(-len(families) // columns)
    figure = Figure(figsize=(11, 0.9 + 2.9 * lines), layout="constrained")
    shared = None
    for place, (family, rows) in enumerate(families.items()):
        shared = axes = figure.add_subplot(lines, columns, place + 1, sharex=shared, sharey=shared)
        for row in rows:
            axes.plot(*zip(*_points(row)), marker="o", markersize=3, linewidth=1, color="#0b5cad", alpha=0.55)
        _slopes(axes, result["lengths"])
        if dense:
            axes.plot(*zip(*dense), marker="s", markersize=4, color="#b5321f", linewidth=1.4)
            axes.annotate("dense", dense[-1], xytext=(5, -3), textcoords="offset points", fontsize=8, color="#b5321f")
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(result["lengths"], [f"{length:,}" for length in result["lengths"]])
        axes.minorticks_off()
        axes.grid(alpha=0.25)
        axes.tick_params(labelsize=8)
        axes.set_title(f"{family} ({len(rows)})", fontsize=9)
        if place % columns == 0:
            axes.set_ylabel("peak, MiB", fontsize=8)
    what = "forward and backward" if result["backward"] else "one call"
    figure.suptitle(
        f"Memory of {what}, {result['heads']} heads of {result['width']}: a blue line per mechanism; "
        "grey: linear (dashed) and quadratic (dotted)",
        fontsize=10,
    )
    figure.savefig(path, dpi=130)


def _points(row: dict[str, Any]) -> list[tuple[int, float]]:
    """Measured lengths and MiB; less than 64 KiB is drawn as that."""
    found = [(int(n), at["peak_bytes"] / MIB) for n, at in row["at"].items() if "peak_bytes" in at]
    return [(n, max(size, 1 / 16)) for n, size in found] or [(1, float("nan"))]


def _slopes(axes: Any, lengths: list[int]) -> None:
    first = lengths[0]
    for power, style in ((1, "--"), (2, ":")):
        axes.plot(lengths, [8 * (n / first) ** power for n in lengths], style, color="#999999", linewidth=1.2)
