"""The scene as an image file: head grid, the maps of chosen heads with their tracks, legends with real values.

PNG, or SVG and PDF with text as text and each matrix as an embedded image. The same scene gives the same bytes.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from regard.seeing.trace import Trace, TraceError
from regard.view import panels, read, words
from regard.view.extras import needed
from regard.view.fonts import drawable, families
from regard.view.scene import Scene

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("png", "svg", "pdf")
MARGIN, HEADER, GAP = 0.35, 0.75, 0.55


def image(
    given: Trace | Scene,
    kind: str = "png",
    *,
    statistic: str | None = None,
    heads: Sequence[tuple[int, int]] = (),
    dpi: int = 160,
) -> bytes:
    """The picture as the bytes of a file. heads: (layer by its place, head) to draw; by default the scene's pick.

    Raises ValueError for a format that is not known, TraceError for a statistic, layer or head that was not watched.
    """
    if kind not in FORMATS:
        raise ValueError(f"cannot draw {kind!r}; choose one of {', '.join(FORMATS)}")
    matplotlib = needed("matplotlib", "drawing image files")
    scene = read.as_scene(given)
    fonts, missing = families([words.visible(scene["model"]), *(t for a in scene["axes"].values() for t in a["text"])])
    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": "regard",
        "pdf.fonttype": 42,
        "font.family": fonts,
        "font.size": 8,
        "axes.linewidth": 0,
        "text.parse_math": False,
    }
    empty = {"png": {"Software": None}, "svg": {"Date": None, "Creator": "regard"}, "pdf": {"CreationDate": None}}[kind]
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        drawing = figure(scene, statistic, heads, set() if kind == "svg" else missing)
        buffer = io.BytesIO()
        drawing.savefig(buffer, format=kind, dpi=dpi, metadata=empty)
    return buffer.getvalue()


def figure(scene: Scene, statistic: str | None, heads: Sequence[tuple[int, int]], missing: set[str]) -> Figure:
    """The matplotlib Figure; missing: characters to draw as boxes."""
    from matplotlib.figure import Figure

    about = read.statistic(scene, statistic)
    chosen = [(*head, "") for head in heads] or [found for found in [read.chosen(scene)] if found is not None]
    shown = partial(drawable, missing=missing)
    parts: list[Any] = [] if about is None else [panels.HeadGrid(scene, about)]
    for layer, head, why in chosen:
        read.head_place(scene, layer, head)
        parts.append(panels.HeadMap(scene, layer, head, why, shown))
        if scene["axes"][scene["layers"][layer]["key"]]["grid"]:
            parts.append(panels.Patches(scene, layer, head, shown))
    if not parts:
        raise TraceError("there is nothing to draw: no attention layer was seen")
    width = max(6.0, 2 * MARGIN + sum(part.width for part in parts) + GAP * (len(parts) - 1))
    height = HEADER + MARGIN + max(part.height for part in parts)
    drawing = Figure(figsize=(width, height), facecolor=panels.PAPER)
    page = panels.Page(drawing, width, height)
    _heading(page, scene, missing)
    x = MARGIN
    for part in parts:
        part.draw(page, x, HEADER)
        x += part.width + GAP
    return drawing


def _heading(page: panels.Page, scene: Scene, missing: set[str]) -> None:
    count = sum(len(layer["heads"]) for layer in scene["layers"])
    axes = ", ".join(f"{name} {words.plural(axis['length'], 'token')}" for name, axis in scene["axes"].items())
    batch = f" · sequence {scene['batch'] + 1} of {scene['batches']}" if scene["batches"] > 1 else ""
    sizes = f"{words.plural(len(scene['layers']), 'layer')} · {words.plural(count, 'head')} · {axes}{batch}"
    model = drawable(words.visible(scene["model"] or "attention"), missing)
    page.text(MARGIN, 0.3, model, size=12, weight="bold")
    page.text(MARGIN, 0.5, sizes, colour=panels.SOFT)
