"""The scene as an image file: head grid, the maps of chosen heads with their tracks, legends with real values.

PNG, or SVG and PDF with text as text and each matrix as an embedded image. The same scene gives the same bytes.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from regard.errors import UserError
from regard.seeing.trace import Trace, TraceError
from regard.view import answered, overviews, panels, patches, read, words
from regard.view.extras import needed
from regard.view.fonts import drawable, families
from regard.view.scene import Scene

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("png", "svg", "pdf")
SHAPES = ("heads", "maps", "lines")
MARGIN, HEADER, GAP = 0.35, 0.75, 0.55
ANSWER, CHARACTER = 0.22, 0.085  # inches: of its line, of a letter in it


def image(
    given: Trace | Scene,
    kind: str = "png",
    *,
    statistic: str | None = None,
    heads: Sequence[tuple[int, int]] = (),
    shape: str = "heads",
    dpi: int = 160,
) -> bytes:
    """The picture as the bytes of a file, of a Trace, a scene, or a comparison (regard.view.difference).

    heads: (layer by its place, head) of each to draw; by default the scene's pick. A comparison draws the same heads
    of A, B and A − B, by default the one that changed most. shape: "heads" draws the grid and the maps of `heads`;
    "maps" a small map of every head; "lines" the `heads` of one layer as lines between two columns of tokens.

    Raises UserError for a format or shape that is not known, TraceError for a statistic, layer or head that was not
    watched.
    """
    if kind not in FORMATS:
        raise UserError(f"cannot draw {kind!r}; choose one of {', '.join(FORMATS)}")
    if shape not in SHAPES:
        raise UserError(f"there is no shape {shape!r} of a picture; there are: {', '.join(SHAPES)}")
    matplotlib = needed("matplotlib", "drawing image files")
    scenes, names = read.scenes_of(given)
    shown = [words.visible(scene["model"]) for scene in scenes] + names
    shown += [answered.line(scene["answer"]) for scene in scenes if scene.get("answer")]
    shown += [text for scene in scenes for axis in scene["axes"].values() for text in axis["text"]]
    fonts, missing = families(shown)
    wanted = _wanted(scenes, heads)
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
        drawing = figure(scenes, names, statistic, wanted, set() if kind == "svg" else missing, shape)
        buffer = io.BytesIO()
        drawing.savefig(buffer, format=kind, dpi=dpi, metadata=empty)
    return buffer.getvalue()


def _wanted(scenes: list[Scene], heads: Sequence[tuple[int, int]]) -> list[tuple[int, int, str]]:
    """(layer, head, why) of each head to draw. Raises TraceError where a scene lacks one."""
    if not heads:
        shown = scenes[-1] if scenes[-1]["signed"] else scenes[0]
        found = read.chosen(shown)
        alone = len(scenes) == 1 or shown["signed"]
        return [] if found is None else [found if alone else (*found[:2], "")]
    for scene in scenes:
        for layer, head in heads:
            read.head_place(scene, layer, head)
    return [(layer, head, "") for layer, head in heads]


def figure(
    scenes: list[Scene],
    names: list[str],
    statistic: str | None,
    heads: list[tuple[int, int, str]],
    missing: set[str],
    shape: str = "heads",
) -> Figure:
    """The matplotlib Figure: a row of panels per scene. missing: characters to draw as boxes."""
    from matplotlib.figure import Figure

    rows = [_panels(scene, statistic, heads, missing, shape) for scene in scenes]
    if not any(rows):
        raise TraceError("there is nothing to draw: no attention layer was seen")
    width = max(6.0, *(2 * MARGIN + sum(part.width for part in row) + GAP * (len(row) - 1) for row in rows))
    headers = [HEADER + (ANSWER if scene.get("answer") else 0) for scene in scenes]
    heights = [header + max(part.height for part in row) for header, row in zip(headers, rows, strict=True)]
    drawing = Figure(figsize=(width, MARGIN + sum(heights)), facecolor=panels.PAPER)
    page = panels.Page(drawing, width, MARGIN + sum(heights))
    y = 0.0
    for scene, name, row, height, header in zip(scenes, names, rows, heights, headers, strict=True):
        _heading(page, y, scene, name, missing)
        x = MARGIN
        for part in row:
            part.draw(page, x, y + header, height - header)
            x += part.width + GAP
        y += height
    return drawing


def _panels(
    scene: Scene, statistic: str | None, heads: list[tuple[int, int, str]], missing: set[str], shape: str
) -> list[Any]:
    shown = partial(drawable, missing=missing)
    if shape == "maps":
        return [overviews.SmallMaps(scene, shown)] if scene["layers"] else []
    if shape == "lines":
        layers = dict.fromkeys(layer for layer, _, _ in heads)
        return [
            overviews.Lines(scene, layer, [head for at, head, _ in heads if at == layer], shown) for layer in layers
        ]
    about = read.statistic(scene, statistic)
    parts: list[Any] = [] if about is None else [panels.Heads(scene, about, shown)]
    for layer, head, why in heads:
        parts.append(panels.HeadMap(scene, layer, head, why, shown))
        if scene["axes"][scene["layers"][layer]["key"]]["grid"]:
            by_word = patches.ByWord(scene, layer, head, shown)
            parts += [patches.Patches(scene, layer, head, shown), *([by_word] if by_word.pictures else [])]
    return parts


def _heading(page: panels.Page, y: float, scene: Scene, name: str, missing: set[str]) -> None:
    model = drawable(words.visible(scene["model"] or "attention"), missing)
    page.text(MARGIN, y + 0.3, f"{drawable(name, missing)}   {model}" if name else model, size=12, weight="bold")
    page.text(MARGIN, y + 0.5, read.sizes(scene), colour=panels.SOFT)
    if scene.get("answer"):
        said = drawable(answered.line(scene["answer"]), missing)
        most = int((page.width - 2 * MARGIN) / CHARACTER)
        page.text(MARGIN, y + 0.72, said if len(said) <= most else said[: most - 1] + "…", size=9, weight="bold")
