"""What lies under an axis of sound in a picture file: its outline, and the seconds of its frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from regard.view import read

if TYPE_CHECKING:
    from regard.view.panels import Page
    from regard.view.scene import Scene

WAVE = 0.34  # inches
STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0)


def room(scene: Scene, axis: str) -> float:
    """Inches that the outline under a key axis takes; none for what is no sound."""
    return 0.0 if read.wave(scene, axis) is None else WAVE + 0.08


def draw(page: Page, scene: Scene, axis: str, left: float, top: float, across: float, colour: str) -> None:
    """The outline of a sound along a key axis, lowest to highest in each of its bins."""
    outline = read.wave(scene, axis)
    if outline is None:
        return
    axes = page.axes(left, top, across, WAVE)
    edges = np.arange(len(outline) + 1)
    axes.stairs(outline[:, 1], edges, baseline=outline[:, 0], fill=True, color=colour, linewidth=0)
    axes.set_xlim(0, len(outline))
    axes.set_ylim(-1, 1)
    axes.set_xticks([])
    axes.set_yticks([])
    page.text(left - 0.07, top + WAVE / 2, "sound", size=6.5, ha="right")


def seconds(axis: dict[str, Any], inches: float) -> list[tuple[float, str]]:
    """(inches along an axis of sound, time) at round steps that have room."""
    lasts = float(axis["seconds"])
    every = next((step for step in STEPS if inches * step / lasts >= 0.5), STEPS[-1])
    count = int(lasts / every) + 1
    return [(inches * n * every / lasts, f"{n * every:g} s") for n in range(count)]
