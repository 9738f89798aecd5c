"""The picture of `regard bench recall`."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def plot(result: dict[str, Any], path: Path) -> None:
    """Accuracy against the number of tokens: a panel per mechanism, all others behind it in grey, as an image file."""
    from matplotlib.figure import Figure

    rows, columns = result["rows"], 4
    lines = -(-len(rows) // columns)
    figure = Figure(figsize=(9.5, 0.6 + 1.75 * lines), layout="constrained")
    places = [str(3 * pairs) for pairs in (*result["pairs"], *result["beyond"])]
    known = len(result["pairs"])
    for place, row in enumerate(rows):
        axes = figure.add_subplot(lines, columns, place + 1)
        for other in rows:
            axes.plot(places, _per_cent(other, places), color="#d5d5d5", linewidth=0.8)
        axes.plot(places, _per_cent(row, places), color="#0b5cad", linewidth=1.8)
        axes.plot(places[:known], _per_cent(row, places[:known]), "o", color="#0b5cad", markersize=4)
        axes.plot(places[known:], _per_cent(row, places[known:]), "o", mfc="white", mec="#0b5cad", markersize=5)
        axes.axhline(100 * result["chance"], color="#999999", linewidth=0.8, linestyle=":")
        axes.set_title(row["mechanism"], fontsize=9)
        axes.set_ylim(-4, 104)
        axes.set_yticks([0, 50, 100])
        axes.tick_params(labelsize=8)
        if place % columns == 0:
            axes.set_ylabel("right, %", fontsize=8)
        if place >= len(rows) - columns:
            axes.set_xlabel("tokens", fontsize=8)
    unseen = "; hollow: a length never trained on" if known < len(places) else ""
    figure.suptitle(f"Associative recall after at most {result['steps']:,} steps; dotted: chance{unseen}", fontsize=10)
    figure.savefig(path, dpi=130)


def _per_cent(row: dict[str, Any], places: list[str]) -> list[float]:
    return [100 * row["accuracy"][length] for length in places]
