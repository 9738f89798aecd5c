"""Quality against cost, as a picture."""

from __future__ import annotations

import io
from typing import Any

from regard.swap.records import Comparison, Row

FORMATS = (".png", ".svg")
INK, OWN, OTHER = "#222222", "#777777", "#0b5cad"


def picture(comparison: Comparison, kind: str = "png") -> bytes:
    """Bits per token against what is read (pairs) and what is kept (cache), a panel each, as the bytes of a file."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "regard"}):
        figure = Figure(figsize=(9.5, 4.2), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        read = [(row, row.cost.pairs_share) for row in comparison.rows]
        _panel(panels[0], [(row, 100 * x) for row, x in read if x is not None], "pairs read, % of its own")
        kept = [(row, row.cost.cache_bytes_per_token / 1024) for row in comparison.rows]
        _panel(panels[1], kept, f"cache, KiB per token at {comparison.context:,} tokens")
        panels[0].set_ylabel("bits per token (lower is better)", fontsize=9)
        title = f"{comparison.model}: {comparison.tokens:,} tokens predicted, {comparison.context:,} in a row"
        figure.suptitle(title, fontsize=10)
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, dpi=130, metadata={"Date": None} if kind == "svg" else None)
    return buffer.getvalue()


def _panel(axes: Any, points: list[tuple[Row, float]], label: str) -> None:
    """One point an attention, its name beside it; names of points that lie together are stacked."""
    axes.set_xlabel(label, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(color="#e8e8e8", linewidth=0.7)
    axes.margins(x=0.3, y=0.18)
    for row, x in points:
        color = OWN if row.name == "own" else OTHER
        axes.plot([x], [row.quality.bits_per_token], "s" if row.name == "own" else "o", color=color, markersize=5)
    height = max((row.quality.bits_per_token for row, _ in points), default=1.0)
    low = min((row.quality.bits_per_token for row, _ in points), default=0.0)
    gap, last = 0.045 * max(height - low, 1e-9), -float("inf")
    for row, x in sorted(points, key=lambda point: point[0].quality.bits_per_token):
        y = max(row.quality.bits_per_token, last + gap)
        last = y
        axes.annotate(
            _short(row.name),
            (x, row.quality.bits_per_token),
            xytext=(x, y),
            fontsize=7,
            color=INK,
            textcoords="data",
            va="center",
            ha="left",
            annotation_clip=False,
        )


def _short(name: str) -> str:
    return "  " + (name if len(name) <= 34 else name[:31] + " …")
