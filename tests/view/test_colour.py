"""The ramps: even, ordered, and readable with every common colour vision."""

import numpy as np
import pytest

from regard.view import colour

# Viénot, Brettel and Mollon 1999, on linear RGB: what two kinds of colour blindness see.
SEEN_BY = {
    "protan": np.array([[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]]),
    "deutan": np.array([[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]]),
}


def linear(table: np.ndarray) -> np.ndarray:
    share = table / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def lightness(rgb: np.ndarray) -> np.ndarray:
    """CIE L* of linear RGB."""
    luminance = (rgb.clip(0, 1) @ np.array([0.2126, 0.7152, 0.0722])).clip(1e-9)
    return np.where(luminance > 0.008856, 116 * np.cbrt(luminance) - 16, 903.3 * luminance)


@pytest.mark.parametrize("light", [True, False])
def test_the_sequential_ramp_rises_evenly_in_lightness(light: bool) -> None:
    steps = np.diff(lightness(linear(colour.sequential(light)))) * (-1 if light else 1)
    assert steps.min() > -0.35
    assert np.convolve(steps, np.ones(8), "valid").min() > 0.5


@pytest.mark.parametrize("light", [True, False])
@pytest.mark.parametrize("eyes", SEEN_BY)
def test_the_sequential_ramp_keeps_its_order_for_colour_blind_eyes(light: bool, eyes: str) -> None:
    seen = lightness(linear(colour.sequential(light)) @ SEEN_BY[eyes].T)
    steps = np.diff(seen[::16]) * (-1 if light else 1)
    assert steps.min() > 0.5


@pytest.mark.parametrize("light", [True, False])
@pytest.mark.parametrize("eyes", [None, *SEEN_BY])
def test_the_ends_of_the_diverging_ramp_differ_in_hue_for_all(light: bool, eyes: str | None) -> None:
    ends = linear(colour.diverging(light)[[0, -1]])
    if eyes is not None:
        ends = ends @ SEEN_BY[eyes].T
    yellowness = ends[:, :2].mean(-1) - ends[:, 2]
    assert yellowness[1] - yellowness[0] > 0.2


def test_transforms_are_ordered_and_bounded() -> None:
    weights = np.concatenate([[0.0], np.logspace(-7, 0, 200)])
    for place in (colour.log_place(weights), colour.power_place(weights)):
        assert place.min() == 0 and abs(place.max() - 1) < 1e-12
        assert (np.diff(place) >= 0).all()
    assert colour.log_place(np.array([1e-4, 1e-2, 1.0])).tolist() == pytest.approx([0, 0.5, 1])
    assert colour.signed_place(np.array([-2.0, 0.0, 2.0]), 2.0).tolist() == [0, 0.5, 1]


def test_the_floor_of_the_log_scale_follows_the_length() -> None:
    assert colour.floor_for(600) == 1e-4
    assert colour.floor_for(8192) == pytest.approx(1e-5)
