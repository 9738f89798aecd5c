"""A page in a real chromium, for every test of this room."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.view.browser import Open, found


@pytest.fixture(scope="package")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found(), args=["--no-sandbox"], headless=True)
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Open]:
    """Opens a page file and afterwards holds it to: no console message, no error, no request, no alert."""
    pages = []
    complaints: list[str] = []

    def start(content: str, address: str = "", width: int = 1400, height: int = 1000, dark: bool = False) -> Any:
        file = tmp_path / f"page{len(pages)}.html"
        file.write_text(content, encoding="utf-8")
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light")
        pages.append(page)
        page.on("console", lambda message: complaints.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: asked.append(request.url))
        asked: list[str] = []
        page.goto(f"{file.as_uri()}{address}")
        page.wait_for_selector("body[data-ready=true], iframe", timeout=30_000)
        assert all(url.startswith((file.as_uri(), "about:srcdoc")) for url in asked), asked
        return page

    yield start
    for page in pages:
        page.close()
    assert complaints == []
