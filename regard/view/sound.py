"""What lies under an axis of sound in a picture file: its outline, its spectrogram, and the seconds of its frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from regard.view import read

if TYPE_CHECKING:
    from regard.view.panels import Page
    from regard.view.scene import Scene

WAVE, BANDS = 0.34, 0.5  # inches
STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0)


def room(scene: Scene, axis: str) -> float:
    """Inches that outline and spectrogram under a key axis take; none for what is no sound."""
    parts = ((read.wave(scene, axis), WAVE), (read.spectrogram(scene, axis), BANDS))
    return sum((inches + 0.08 for part, inches in parts if part is not None), 0.0)


def draw(page: Page, scene: Scene, axis: str, left: float, top: float, across: float, colour: str) -> None:
    """A sound along a key axis: its outline, lowest to highest in each of its bins, and below it its spectrogram."""
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
    loud = read.spectrogram(scene, axis)
    if loud is None:
        return
    axes = page.axes(left, top + WAVE + 0.08, across, BANDS)
    axes.imshow(loud, aspect="auto", origin="lower", cmap="Greys", vmin=0, vmax=1)
    axes.set_xticks([])
    axes.set_yticks([])
    page.text(left - 0.07, top + WAVE + 0.08 + BANDS / 2, "mel bands", size=6.5, ha="right")


def seconds(axis: dict[str, Any], inches: float) -> list[tuple[float, str]]:
    """(inches along an axis of sound, time) at round steps that have room."""
    lasts = float(axis["seconds"])
    every = next((step for step in STEPS if inches * step / lasts >= 0.5), STEPS[-1])
    count = int(lasts / every) + 1
    return [(inches * n * every / lasts, f"{n * every:g} s") for n in range(count)]
