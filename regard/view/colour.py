"""Colours of all pictures, computed once here: terminal, image and page draw with the same tables.

Ramps are paths in OKLab (Ottosson 2020) with evenly rising lightness, so equal steps look equal and the order survives
grey print and colour blindness. The sequential ramp runs from deep indigo to pale yellow; pictures on a light ground
read it from the pale end, so that nothing recedes into the paper.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Table = NDArray[np.uint8]

_LAB_TO_LMS = np.array(
    [[1.0, 0.3963377774, 0.2158037573], [1.0, -0.1055613458, -0.0638541728], [1.0, -0.0894841775, -1.2914855480]]
)
_LMS_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


_MIDDLE = [(0.42, 0.15, 275), (0.60, 0.13, 222), (0.78, 0.13, 160), (0.90, 0.10, 118)]


def sequential(light: bool = True) -> Table:
    """[256, 3] sRGB bytes, from nothing to most."""
    if light:
        return np.ascontiguousarray(_ramp([(0.24, 0.12, 282), *_MIDDLE, (0.975, 0.03, 105)])[::-1])
    return _ramp([(0.17, 0.05, 285), *_MIDDLE, (0.965, 0.075, 105)])


def diverging(light: bool = True) -> Table:
    """[256, 3] sRGB bytes, blue for negative, orange for positive, the ground's own shade in the middle."""
    middle, end = (0.97, 0.47) if light else (0.22, 0.78)
    hues = (255.0, 50.0)
    half = [_ramp([(middle, 0.004, hue), ((middle + end) / 2, 0.10, hue), (end, 0.165, hue)], 128) for hue in hues]
    return np.concatenate([half[0][::-1], half[1]])


def _ramp(stops: list[tuple[float, float, float]], steps: int = 256) -> Table:
    """Interpolates (lightness, chroma, hue in degrees), evenly in lightness."""
    lightness = np.linspace(stops[0][0], stops[-1][0], steps)
    order = sorted(stops)
    chroma = np.interp(lightness, [s[0] for s in order], [s[1] for s in order])
    hue = np.interp(lightness, [s[0] for s in order], [s[2] for s in order])
    return np.stack([_in_gamut(*lch) for lch in zip(lightness, chroma, hue)])


def _in_gamut(lightness: float, chroma: float, hue: float) -> Table:
    """The sRGB bytes of a colour, with as much of its chroma as sRGB can show."""
    least, most = 0.0, chroma
    for _ in range(20):
        tried = _linear_rgb(lightness, most, hue)
        if tried.min() >= 0 and tried.max() <= 1:
            break
        middle = (least + most) / 2
        inside = _linear_rgb(lightness, middle, hue)
        least, most = (middle, most) if inside.min() >= 0 and inside.max() <= 1 else (least, middle)
    rgb = _linear_rgb(lightness, most, hue).clip(0, 1)
    encoded = np.where(rgb <= 0.0031308, 12.92 * rgb, 1.055 * rgb ** (1 / 2.4) - 0.055)
    return np.round(encoded * 255).astype(np.uint8)


def _linear_rgb(lightness: float, chroma: float, hue: float) -> NDArray[np.float64]:
    angle = math.radians(hue)
    lab = np.array([lightness, chroma * math.cos(angle), chroma * math.sin(angle)])
    return np.asarray(_LMS_TO_RGB @ (_LAB_TO_LMS @ lab) ** 3)


def ink_on(rgb: Sequence[int]) -> tuple[int, int, int]:
    """Black or white, whichever reads better on a colour."""
    return (16, 16, 20) if 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2] > 140 else (255, 255, 255)


# ---- transforms: a weight to a place 0..1 on a ramp ------------------------------------------------------------------

LOG_FLOOR = 1e-4
POWER = 0.4


def floor_for(keys: int) -> float:
    """The floor of the log scale: 1e-4, lower where a uniform row over `keys` would be near it."""
    return LOG_FLOOR if keys <= 1000 else float(10.0 ** math.floor(math.log10(0.1 / keys)))


def log_place(values: NDArray[np.floating], top: float = 1.0, floor: float = LOG_FLOOR) -> NDArray[np.float64]:
    """log10 between floor and top: 0 at or below the floor, 1 at the top."""
    safe = np.maximum(np.asarray(values, dtype=np.float64), floor)
    return np.asarray((np.log(safe / floor) / math.log(max(top, floor * 1.0001) / floor)).clip(0, 1))


def power_place(values: NDArray[np.floating], top: float = 1.0, gamma: float = POWER) -> NDArray[np.float64]:
    """(value / top) ^ gamma."""
    scaled = np.maximum(np.asarray(values, dtype=np.float64), 0) / max(top, 1e-30)
    return np.asarray((scaled**gamma).clip(0, 1))


def signed_place(values: NDArray[np.floating], edge: float, gamma: float = POWER) -> NDArray[np.float64]:
    """0.5 at zero, 0 at -edge, 1 at edge; (|value| / edge) ^ gamma between."""
    numbers = np.asarray(values, dtype=np.float64)
    return np.asarray(0.5 + 0.5 * np.sign(numbers) * power_place(np.abs(numbers), edge, gamma))


def even_place(values: NDArray[np.floating], low: float, high: float) -> NDArray[np.float64]:
    """Evenly between low and high; all 0.5 where they are equal."""
    numbers = np.asarray(values, dtype=np.float64)
    if high <= low:
        return np.full(numbers.shape, 0.5)
    return np.asarray(((numbers - low) / (high - low)).clip(0, 1))


def of(table: Table, place: NDArray[np.float64]) -> Table:
    """The colours [..., 3] at places 0..1 of a table; NaN takes the first."""
    index = np.nan_to_num(place * 255).round().astype(np.int64).clip(0, 255)
    return np.asarray(table[index])
