"""The viewer in a real chromium on long inputs: every number it shows is the exact weight to the digits shown."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from regard.seeing.trace import Trace
from tests.view import long, traces
from tests.view.browser import why_not
from tests.view.test_browser import cell, pixel, shown
from tests.view.test_pyramid import dense

pytest.importorskip("uvicorn")
REASON = why_not()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

Seen = Callable[..., Any]


@pytest.fixture
def viewed(browser: Any) -> Iterator[Seen]:
    """Opens Traces in the viewer; afterwards: no console message, no error, no request to another host."""
    from contextlib import ExitStack

    from tests.view.served import serving

    stack, complaints, pages = ExitStack(), [], []

    def start(*given: Trace, address: str = "", width: int = 1300, height: int = 1200) -> Any:
        url = stack.enter_context(serving(*((f"trace {n}", trace) for n, trace in enumerate(given))))
        page = browser.new_page(viewport={"width": width, "height": height})
        pages.append(page)
        page.on("console", lambda message: complaints.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        host = urlsplit(url).netloc
        page.on("request", lambda r: None if urlsplit(r.url).netloc == host else complaints.append(f"asked: {r.url}"))
        page.goto(url + address)
        page.wait_for_selector("body[data-ready=true]")
        settled(page)
        return page

    yield start
    for page in pages:
        page.close()
    stack.close()
    assert complaints == []


def until(page: Any, what: str, seconds: float = 20) -> None:
    """Waits for an expression; the page's policy keeps playwright's own waiting from evaluating text."""
    end = time.monotonic() + seconds
    while not page.evaluate(what):
        assert time.monotonic() < end, what
        page.wait_for_timeout(30)


def settled(page: Any) -> None:
    """Waits until a frame was drawn and nothing that it asked for is missing."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    until(page, "!window.regard.busy()")
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def show(page: Any, row: int, key: int, rows: int, keys: int) -> None:
    """Shows a part of the map, as an address asks for it."""
    page.evaluate(
        "(at) => { location.hash = location.hash.replace(/&at=[^&]*/, '') + '&at=' + at; }",
        f"{row},{key},{rows},{keys}",
    )
    settled(page)


def test_cells_read_off_the_page_at_any_zoom_are_the_exact_weights(viewed: Seen) -> None:
    trace = long.trace(3000, layers=2, heads=2, groups=1)
    page = viewed(trace, address="#layer=1&head=1")
    weights, draw = dense(trace, 1, 1), random.Random(3)
    for _ in range(8):
        size = draw.choice((4, 17, 60, 120, 300))
        row = draw.randrange(size, 3000 - size)
        key = draw.randrange(0, row - size + 1)
        show(page, row, key, size, size)
        for _ in range(3):
            at = row + draw.randrange(size), key + draw.randrange(size)
            if at[1] > at[0]:
                continue
            x, y = cell(page, *at)
            page.locator("#canvas").hover(position={"x": x, "y": y})
            told = page.inner_text("#map-readout")
            assert told.endswith(f": {shown(float(weights[at]))}"), (at, told)


def test_the_locked_row_tells_its_strongest_links_and_what_is_left(viewed: Seen) -> None:
    trace = long.trace(2500)
    page = viewed(trace, address="#layer=0&head=1&row=2000")
    page.wait_for_selector("#row-body .bars")
    row = dense(trace, 0, 1)[2000]
    best = row.sort(descending=True)
    values = page.locator("#row-body .bars .value").all_inner_texts()
    assert values[:16] == [shown(float(value)) for value in best.values[:16]]
    assert float(values[16]) == pytest.approx(float(best.values[16:].sum()), rel=5e-3)
    assert page.locator("svg.arcs path").count() >= 1


def test_zooming_in_at_a_pair_ends_at_that_pair(viewed: Seen) -> None:
    trace = long.trace(2500)
    page = viewed(trace, address="#layer=0&head=0&row=1234&key=777")
    for _ in range(12):
        page.click("#zoom-in")
    settled(page)
    view = page.evaluate("window.regard.current().view")
    assert view["rows"] == view["keys"] == 4
    assert view["row"] <= 1234 < view["row"] + 4 and view["key"] <= 777 < view["key"] + 4
    until(page, "decodeURIComponent(location.hash).includes(',4,4')")
    again = viewed(trace, address=page.evaluate("location.hash"))
    assert again.evaluate("window.regard.current().view.rows") == 4


def test_pooled_tiles_are_finer_than_the_overview(viewed: Seen) -> None:
    trace = long.trace(3000)
    weights = dense(trace, 0, 1)
    page = viewed(trace, address="#layer=0&head=1&which=max")
    show(page, 2000, 500, 1000, 1000)
    for row, key in ((2201, 600), (2900, 1400)):
        x, y = cell(page, row, key)
        page.locator("#canvas").hover(position={"x": x, "y": y})
        told = page.inner_text("#map-readout")
        sizes = {2**z for z in range(1, 3)}
        best = {
            shown(float(weights[row // s * s : row // s * s + s, key // s * s : key // s * s + s].max())) for s in sizes
        }
        assert any(f"≈{value} (largest of" in told for value in best), told


def test_hidden_sinks_are_renormalised_and_their_mass_is_said(viewed: Seen) -> None:
    trace = long.trace(1500)
    page = viewed(trace, address="#layer=0&head=0&hide=2&at=1000,0,12,12")
    until(page, "window.regard.current().cells.slotMass")
    settled(page)
    weights = dense(trace, 0, 0)
    mass = page.evaluate("[...window.regard.current().cells.slotMass]")
    assert mass[1003] == pytest.approx(float(weights[1003, :2].sum()), rel=1e-5)
    assert "Hidden keys hold" in page.inner_text("#map-said")
    assert pixel(page, 1003, 0) != pixel(page, 1003, 7)


def test_several_traces_open_from_a_list(viewed: Seen) -> None:
    page = viewed(long.trace(400), long.trace(300), traces.decoder(12, 2, 2))
    assert page.locator("#traces option").all_inner_texts() == ["trace 0", "trace 1", "trace 2"]
    page.select_option("#traces select", "2")
    page.wait_for_selector("#sizes:has-text('12 tokens')")


def test_hostile_tokens_stay_text_in_the_viewer(viewed: Seen) -> None:
    trace = long.trace(600, words=traces.HOSTILE[:9])
    page = viewed(trace, address="#layer=0&head=0&row=300&key=200&at=290,190,20,20")
    assert page.locator("main script, main img").count() == 0
    assert "<script>alert(1)</script>" in page.inner_text("#strips")
