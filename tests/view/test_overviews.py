"""The page's small maps, lines, pictures and sounds, in a real chromium; and how large a page becomes."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from regard.hf.media import outline
from regard.view.page import html
from tests.view import traces
from tests.view.browser import Open, why_not

REASON = why_not()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))


@pytest.mark.parametrize("dark", [False, True])
def test_every_head_has_a_small_map_and_a_click_shows_it_large(opened: Open, dark: bool) -> None:
    page = opened(html(traces.decoder(12, 3, 4)), "#layer=0&head=0&grid=maps", dark=dark)
    assert page.locator("#grid canvas").count() == 12
    page.locator('#grid button[data-layer="2"][data-head="3"]').click()
    assert page.inner_text("#map-title") == "Head 2.3"
    assert "weight, log10" in page.inner_text("#grid-legend")


def test_lines_are_the_weights_and_heads_are_overlaid(opened: Open) -> None:
    trace = traces.decoder(12, 2, 3)
    page = opened(html(trace), "#layer=1&head=0&shape=lines")
    wanted = [int((trace.weights(1, head) >= 0.02).sum()) for head in range(3)]
    assert page.locator("#lines line").count() == wanted[0]
    page.locator(".toggles button", has_text="2").click()
    assert page.locator("#lines line").count() == wanted[0] + wanted[2]
    page.locator(".toggles button", has_text="all").click()
    assert page.locator("#lines line").count() == sum(wanted)
    page.locator('#lines text[data-slot="7"]').first.click()
    shown = page.locator("#lines line:not(.dim)").count()
    assert shown == sum(int((trace.weights(1, head)[7] >= 0.02).sum()) for head in range(3))
    assert "shape=lines" in page.evaluate("location.hash")


def test_the_picture_lies_under_its_patches_and_a_sound_over_its_frames(opened: Open) -> None:
    trace = copy.copy(traces.image(4))
    picture = torch.randint(0, 256, (1, 20, 20, 3), dtype=torch.uint8)
    trace.axes = {name: replace(axis, picture=picture) if axis.grid else axis for name, axis in trace.axes.items()}
    page = opened(html(trace))
    assert page.evaluate("getComputedStyle(document.querySelector('.pictured')).backgroundImage").startswith("url(")
    heard = copy.copy(traces.decoder(60, 1, 2))
    wave = outline(torch.sin(torch.arange(48_000) / 9), 48_000)
    bands = torch.arange(48 * 60).view(1, 48, 60).to(torch.uint8)
    tokens = replace(heard.axes["decoder"], kind="frames", seconds=3.0, wave=wave, spectrogram=bands)
    heard.axes = {"decoder": tokens}
    page = opened(html(heard))
    assert page.locator(".sound polygon").count() == 1
    assert page.evaluate("getComputedStyle(document.querySelector('.bands')).maskImage").startswith("url(")
    assert page.locator(".seconds span").all_inner_texts()[-1] == "3 s"


def test_generated_tokens_are_marked(opened: Open) -> None:
    trace = copy.copy(traces.decoder(12, 1, 2))
    trace.axes = {"decoder": replace(trace.axes["decoder"], prompt=8)}
    page = opened(html(trace))
    assert page.locator(".token.made").count() == 4 and page.locator(".role.made").inner_text() == "generated"


def test_the_keyboard_reaches_the_statistics_in_a_few_tabs_and_walks_the_text(opened: Open) -> None:
    page = opened(html(traces.decoder(400, 2, 2)))
    presses = 0
    while presses < 8 and page.evaluate("document.activeElement.id") != "statistic":
        presses += 1
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "statistic" and presses <= 6
    page.locator(".token").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert page.evaluate("window.regard.state.row") == 1


def test_a_page_of_512_tokens_and_144_heads_is_under_4_megabytes() -> None:
    assert len(html(traces.decoder(512, 12, 12)).encode()) < 4_000_000
