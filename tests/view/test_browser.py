"""The page in a real chromium: it draws, its numbers are the Trace's, it asks for nothing, and tokens stay text."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from regard.seeing.statistics import DistanceHistogram, Entropy, Maximum, Overview, Received, TopK
from regard.seeing.trace import Tokens, Trace
from regard.statistic import Statistic
from regard.view.difference import difference
from regard.view.notebook import notebook
from regard.view.page import html
from regard.view.words import number, tag, visible
from tests.view import traces
from tests.view.browser import Open, why_not

REASON = why_not()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))


def cell(page: Any, row: int, key: int) -> tuple[float, float]:
    """Where a cell of the map is drawn, in the coordinates of the canvas."""
    place = page.evaluate(
        """([row, key]) => {
            const { layout, view } = window.regard.current();
            return [layout.left + (key + 0.5 - view.key) * layout.across / view.keys,
                    layout.top + (row + 0.5 - view.row) * layout.down / view.rows];
        }""",
        [row, key],
    )
    return place[0], place[1]


def pixel(page: Any, row: int, key: int) -> list[int]:
    """The colour of a cell, read a little off its middle, where no number stands."""
    x, y = cell(page, row, key)
    read = """([x, y]) => {
        const canvas = document.getElementById("canvas"), ratio = canvas.width / canvas.clientWidth;
        const { layout, view } = window.regard.current(), above = (0.38 * layout.down) / view.rows;
        const copy = document.createElement("canvas");
        copy.width = copy.height = 1;
        const context = copy.getContext("2d", { willReadFrequently: true });
        context.drawImage(canvas, Math.round(x * ratio), Math.round((y - above) * ratio), 1, 1, 0, 0, 1, 1);
        return [...context.getImageData(0, 0, 1, 1).data];
    }"""
    return list(page.evaluate(read, [x, y]))


def shown_links(page: Any) -> list[tuple[str, str]]:
    return [
        (who, value)
        for who, value in zip(
            page.locator("#row-body .bars .who").evaluate_all(
                "(all) => all.map((x) => (x.querySelector('bdi') || x).textContent)"
            ),
            page.locator("#row-body .bars .value").all_inner_texts(),
            strict=True,
        )
        if who != "elsewhere"
    ]


def shown(value: float) -> str:
    """A number as the page writes it."""
    return number(value).replace("e-0", "e-").replace("e+0", "e+")


def test_a_click_on_a_head_draws_its_map(opened: Open) -> None:
    trace = traces.decoder(12, 4, 6, text=traces.SENTENCE)
    page = opened(html(trace))
    for layer, head in ((0, 0), (1, 3), (3, 5)):
        page.click(f'#grid button[data-layer="{layer}"][data-head="{head}"]')
        assert page.inner_text("#map-title") == f"Head {layer}.{head}"
        weights = trace.weights(layer, head)
        row = int(weights[:, 1:].amax(-1).argmax())
        strongest, weakest = (int(f(weights[row, : row + 1])) for f in (lambda x: x.argmax(), lambda x: x.argmin()))
        dark, pale = pixel(page, row, strongest), pixel(page, row, weakest)
        assert sum(dark[:3]) < sum(pale[:3])
        assert pixel(page, 0, 11) == pixel(page, 2, 9), "what may not be seen is drawn alike"


def test_the_numbers_of_a_row_are_the_traces(opened: Open) -> None:
    trace = traces.decoder(12, 4, 6, text=traces.SENTENCE)
    page = opened(html(trace), "#layer=2&head=3&row=7")
    top = trace.layers[2].results["top"]
    expected = [
        (tag(traces.SENTENCE[int(key)]), shown(float(weight)))
        for weight, key in zip(top["weights"][0, 3, 7], top["keys"][0, 3, 7])
        if weight > 0
    ]
    assert shown_links(page) == expected
    for label, about in trace.statistics.items():
        if about.shape == "row" and label in trace.layers[2].results:
            value = float(trace.layers[2].results[label]["rows"][0, 3, 7])
            assert page.inner_text(f'#row-body dd[data-label="{label}"]') == shown(value), label
        if label in trace.layers[2].summaries:
            value = float(trace.layers[2].summaries[label][0, 3])
            assert page.inner_text(f'#head-body dd[data-summary="{label}"]') == shown(value), label


def test_hover_previews_a_row_and_a_click_locks_it(opened: Open) -> None:
    trace = traces.decoder(12, 2, 2, text=traces.SENTENCE)
    page = opened(html(trace), "#layer=1&head=1")
    canvas = page.locator("#canvas")
    x, y = cell(page, 8, 3)
    canvas.hover(position={"x": x, "y": y})
    value = float(trace.weights(1, 1)[8, 3])
    assert page.inner_text("#map-readout") == f"dant 8 → blue 3: {shown(value)}"
    assert "locked" not in page.inner_text("#row-body")
    canvas.click(position={"x": x, "y": y})
    assert "row=8" in page.evaluate("location.hash") and "key=3" in page.evaluate("location.hash")
    assert page.inner_text("#row-body h2") == "Row, locked"
    assert page.locator("svg.arcs path").count() >= 1
    page.keyboard.press("Escape")
    assert "row=" not in page.evaluate("location.hash")
    assert page.locator("svg.arcs path").count() == 0


def test_the_address_restores_the_selection(opened: Open) -> None:
    content = html(traces.decoder(12, 4, 6, text=traces.SENTENCE))
    page = opened(content)
    page.click('#grid button[data-layer="1"][data-head="4"]')
    page.select_option("#statistic", "entropy")
    page.click("#scale button:has-text('power')")
    page.fill("#hide", "1")
    page.locator(".token").nth(6).click()
    address = page.evaluate("location.hash")
    again = opened(content, address)
    assert again.evaluate("location.hash") == address or again.evaluate("location.hash") == ""
    for wanted in ("#map-title", "#row-body", "#head-body", "#map-said", "#grid-readout"):
        assert again.inner_text(wanted) == page.inner_text(wanted), wanted
    kept = "JSON.stringify(window.regard.state)"
    ignored = {"hoverRow", "hoverKey"}
    states = [{k: v for k, v in json.loads(p.evaluate(kept)).items() if k not in ignored} for p in (page, again)]
    assert states[0] == states[1]


def test_an_address_that_asks_for_what_is_not_there_is_harmless(opened: Open) -> None:
    page = opened(html(traces.decoder(6, 1, 2)), "#layer=9&head=77&row=4000&key=9&statistic=%3Cb%3E&scale=x&view=5")
    assert page.inner_text("#map-title") in ("Head 0.0", "Head 0.1")
    assert page.evaluate("window.regard.state.row") is None


def test_hidden_keys_are_renormalised_and_their_mass_is_said(opened: Open) -> None:
    trace = traces.decoder(12, 2, 2, text=traces.SENTENCE)
    page = opened(html(trace), "#layer=1&head=0&hide=1")
    weights = trace.weights(1, 0).double()
    cells = page.evaluate("() => { const { cells } = window.regard.current(); return [...cells.values]; }")
    mass = page.evaluate("() => [...window.regard.current().cells.mass]")
    for row in range(1, 12):
        assert mass[row] == pytest.approx(float(weights[row, 0]), rel=1e-5)
        for key in range(1, row + 1):
            expected = float(weights[row, key] / (1 - weights[row, 0]))
            assert cells[12 * row + key] == pytest.approx(expected, rel=1e-4)
        assert cells[12 * row] == 0
    assert "Hidden keys hold" in page.inner_text("#map-said")


def test_keys_move_the_row_and_the_head(opened: Open) -> None:
    page = opened(html(traces.decoder(12, 3, 3, text=traces.SENTENCE)), "#layer=1&head=1&row=5&key=2")
    page.focus("#canvas")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("[window.regard.state.row, window.regard.state.key]") == [6, 3]
    page.focus('#grid button[aria-selected="true"]')
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowUp")
    assert page.inner_text("#map-title") == "Head 0.2"
    assert page.locator("#grid button[tabindex='0']").count() == 1


def test_zoom_shows_less_and_fit_shows_all(opened: Open) -> None:
    page = opened(html(traces.decoder(60, 1, 2)))
    rows = "window.regard.current().view.rows"
    page.click("#zoom-in")
    page.click("#zoom-in")
    assert page.evaluate(rows) == 15
    page.mouse.move(600, 500)
    page.click("#zoom-fit")
    assert page.evaluate(rows) == 60


@pytest.mark.parametrize("dark", [False, True])
def test_hostile_tokens_are_shown_and_not_run(opened: Open, dark: bool) -> None:
    page = opened(html(traces.hostile()), "#row=11", dark=dark)
    texts = page.locator(".token").all_text_contents()
    assert texts == [visible(text) for text in traces.HOSTILE]
    assert page.locator("main script, main img").count() == 0
    assert page.evaluate("document.documentElement.dataset.theme") == ("dark" if dark else "light")
    page.click("#theme")


def test_cross_attention_colours_the_keys_of_the_other_text(opened: Open) -> None:
    source, target = ["Ein", "Hund", "läuft", "</s>"], ["<s>", "A", "dog", "runs"]
    trace = traces.translator(source, target)
    page = opened(html(trace), "#layer=4&head=0&row=2")
    strips = page.locator(".strip")
    assert strips.count() == 2
    assert strips.nth(0).locator(".token").all_text_contents() == target
    assert strips.nth(1).locator(".token").all_text_contents() == source
    top = trace.layers[4].results["top"]
    assert shown_links(page)[0] == (source[int(top["keys"][0, 0, 2, 0])], shown(float(top["weights"][0, 0, 2, 0])))


def test_patches_are_drawn_as_the_grid_they_form(opened: Open) -> None:
    page = opened(html(traces.image(4)))
    assert page.locator(".patches .square button").count() == 16
    assert page.locator(".patches .others button").all_text_contents() == ["[CLS]"]
    page.locator(".patches .square button").nth(5).click()
    assert page.evaluate("window.regard.state.row") == 6


def test_a_pooled_map_says_what_a_cell_is(opened: Open) -> None:
    trace = traces.decoder(200, 1, 2, resolution=64)
    page = opened(html(trace), "#layer=0&head=1&row=150&which=mean")
    assert "4 × 4 pairs" in page.inner_text("#map-said") and "the mean" in page.inner_text("#map-said")
    top = trace.layers[0].results["top"]
    assert shown_links(page)[0][1] == shown(float(top["weights"][0, 1, 150, 0]))


def test_a_comparison_switches_between_its_views(opened: Open) -> None:
    a, b = traces.decoder(8, 2, 2), traces.decoder(8, 2, 2, seed=9)
    page = opened(html(difference(a, b, names=("one", "two"))), "#layer=1&head=0&row=6&key=2")
    values = [float(trace.weights(1, 0)[6, 2]) for trace in (a, b)]
    assert page.locator("#thumbnails button").all_inner_texts() == ["one", "two", "one − two"]
    page.click("#views button:has-text('one − two')")
    assert "view=2" in page.evaluate("location.hash")
    told = page.inner_text("#map-readout")
    for value in (*values, values[0] - values[1]):
        assert shown(value) in told
    page.locator("#thumbnails button").nth(1).click()
    assert page.evaluate("window.regard.state.view") == 1
    assert page.evaluate("window.regard.state.row") == 6


def test_a_comparison_of_other_lengths_says_why_there_is_no_difference(opened: Open) -> None:
    page = opened(html(difference(traces.decoder(8, 2, 2), traces.decoder(9, 2, 2))))
    assert page.locator("#views button").all_inner_texts() == ["A", "B"]
    assert "not equally many" in page.inner_text("#notice")


@pytest.mark.parametrize(
    "make", [lambda: traces.decoder(1, 1, 1), lambda: traces.decoder(12, 2, 2, batch=2, padding=3), lambda: Trace()]
)
def test_small_and_empty_traces_open(browser: Any, tmp_path: Path, make: Callable[[], Trace]) -> None:
    file = tmp_path / "page.html"
    file.write_text(html(make()), encoding="utf-8")
    page = browser.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(file.as_uri())
    page.wait_for_selector("body[data-ready=true], #notice:not([hidden])")
    page.close()
    assert errors == []


def test_a_phone_shows_the_page_without_sideways_scrolling(opened: Open) -> None:
    page = opened(html(traces.decoder(12, 4, 6, text=traces.SENTENCE)), width=390, height=844)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_page_works_inside_a_notebooks_frame(opened: Open) -> None:
    trace = traces.decoder(6, 2, 2)
    page = opened(f"<!doctype html><body>{notebook(trace)}</body>")
    frame = page.frame_locator("iframe")
    frame.locator("body[data-ready=true]").wait_for()
    frame.locator('#grid button[data-layer="1"][data-head="1"]').click()
    assert frame.locator("#map-title").inner_text() == "Head 1.1"


def test_norm_weighted_maps_are_shown_on_request(opened: Open) -> None:
    trace = traces.watched(Overview(), TopK(), Received(), Overview().norm(), TopK().norm(), Received().norm())
    page = opened(html(trace), "#layer=0&head=1&row=8&key=3")
    weight = float(trace.layers[0].results["overview"]["max"][0, 1, 8, 3])
    assert shown(weight) in page.inner_text("#map-readout")
    page.click("#of button:has-text('norm-weighted')")
    assert "of=norm" in page.evaluate("location.hash")
    assert shown(3 * weight) in page.inner_text("#map-readout")
    strongest = float(trace.layers[0].results["top"]["weights"][0, 1, 8, 0])
    assert float(shown_links(page)[0][1]) == pytest.approx(3 * strongest, rel=0.01)


@pytest.mark.parametrize("watch", [Entropy(), TopK(), Overview(), Received(), DistanceHistogram(), Maximum()])
def test_a_single_statistic_is_enough_for_a_page(opened: Open, watch: Statistic) -> None:
    page = opened(html(traces.watched(watch)))
    assert page.locator("#grid button").count() == 2
    page.locator(".token").nth(4).click()
    assert "row 4" in page.inner_text("#row-body")


def test_sound_frames_are_narrow_cells(opened: Open) -> None:
    trace = copy.copy(traces.watched(Overview(), TopK(), Received(), length=120))
    tokens = trace.axes["decoder"]
    trace.axes = {"decoder": Tokens(tokens.text, tokens.axis, "frames")}
    page = opened(html(trace))
    assert page.locator(".frames .token").count() == 120
    assert page.locator(".frames").bounding_box()["height"] < 100
