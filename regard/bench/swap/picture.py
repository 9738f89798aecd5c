"""The picture of quality against budget: a panel for each task, a line for each policy and mechanism."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from regard.errors import UserError

FORMATS = (".png", ".svg")
COLORS = {
    "h2o": "#c1272d",
    "sinks": "#222222",
    "tova": "#b8860b",
    "snapkv": "#0b5cad",
    "pyramid": "#5aa0dc",
    "ada": "#15807a",
    "expected": "#7a3fa0",
    "duo": "#2e8b2e",
    "quest": "#d2691e",
    "window": "#888888",
    "window | sinks": "#bbbbbb",
    "topk": "#d36ab5",
}
READS = ("quest", "topk")  # keep all and read some: dashed
MARKS = {"linear_recurrent": "s", "gla": "D", "delta": "^"}


def check(path: Path, parts: Sequence[str]) -> None:
    """Raise UserError for a picture that cannot be made."""
    if path.suffix not in FORMATS:
        raise UserError(f"{path.name} is no picture; give a name that ends in {' or '.join(FORMATS)}")
    if "quality" not in parts:
        raise UserError("--out is the picture of quality against budget; add quality to --parts")


def plot(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Accuracy for tasks with right answers, bits per token for a text, against the share that is kept."""
    import matplotlib
    from matplotlib.figure import Figure

    tasks = list(dict.fromkeys(row["task"] for row in rows))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "regard"}):
        figure = Figure(figsize=(1.9 + 3.3 * len(tasks), 4.3), layout="constrained")
        panels = figure.subplots(1, len(tasks), squeeze=False)[0]
        for axes, task in zip(panels, tasks, strict=True):
            _panel(axes, task, [row for row in rows if row["task"] == task])
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right center", fontsize=8, frameon=False)
        figure.savefig(path, dpi=130, metadata={"Date": None} if path.suffix == ".svg" else None)


def _panel(axes: Any, task: str, rows: Sequence[Mapping[str, Any]]) -> None:
    in_bits = task == "text"
    key, factor = ("bits", 1) if in_bits else ("accuracy", 100)
    own = next(row for row in rows if row["attention"] == "own")
    axes.axhline(factor * own[key], color="#999999", linewidth=0.9, linestyle=":", label="the model's own")
    for name, color in COLORS.items():
        mine = sorted((row["keeps"], factor * row[key]) for row in rows if row["attention"] == name)
        style = "--" if name in READS else "-"
        axes.plot(*zip(*mine, strict=True), style, color=color, marker="o", markersize=3, linewidth=1.4, label=name)
    for name, mark in MARKS.items():
        for row in rows:
            if row["attention"] == name:
                axes.plot([row["keeps"]], [factor * row[key]], mark, color="#555555", markersize=5, label=name)
    axes.set_title(task, fontsize=9)
    axes.set_xlabel("share of the prompt kept (dashed: read)", fontsize=8)
    axes.set_ylabel("bits per token (lower is better)" if in_bits else "right, %", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(color="#ececec", linewidth=0.7)
    if in_bits:
        kept = [row["bits"] for row in rows if row["attention"] not in MARKS]
        axes.set_ylim(min(kept) - 0.05, max(kept) + 0.05)  # mechanisms that were not healed lie far above
