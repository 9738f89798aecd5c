"""The page at / in a real browser: type, watch tokens arrive, see what one attended to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.serve.server import running
from tests.view.browser import found, why_not

pytestmark = [
    pytest.mark.skipif(why_not() is not None, reason=why_not() or ""),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with running() as (address, _), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found(), args=["--no-sandbox"], headless=True)
        page = browser.new_page(viewport={"width": 1200, "height": 760})
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
        page.goto(address)
        yield page
        browser.close()
        assert problems == []


def test_tokens_arrive_and_one_shows_what_it_attended_to(page: Any) -> None:
    page.fill("#prompt", "The old man and the")
    page.fill("#most", "20")
    page.click("#write")
    page.wait_for_function(
        "document.querySelectorAll('.new').length === 20 && !document.getElementById('write').disabled"
    )
    token = page.locator(".new").nth(10)
    token.focus()
    assert page.locator("#links tr").count() > 3
    weights = [float(cell) for cell in page.locator("#links td.number").all_text_contents()]
    assert weights == sorted(weights, reverse=True) and 0 < sum(weights) <= 1.001
    assert "nats" in page.inner_text("#numbers")
    assert page.locator("#layer option").count() == 5
    page.select_option("#layer", "1")
    assert [float(c) for c in page.locator("#links td.number").all_text_contents()] != weights
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.index") == str(int(token.get_attribute("data-index")) + 1)


def test_writing_can_be_stopped_and_a_mistake_is_told(page: Any) -> None:
    page.fill("#most", "1500")
    page.click("#write")
    page.wait_for_function("document.querySelectorAll('.new').length > 3")
    page.click("#stop")
    page.wait_for_function("!document.getElementById('write').disabled")
    assert page.inner_text("#problem") == ""
