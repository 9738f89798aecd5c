"""Finding a browser for the tests of the page: `python -m tests.view.browser` brings one where one can be had."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any

Open = Callable[..., Any]
"""opened(content, address="", width=…, height=…, dark=…): a page in the browser."""

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
SECONDS = 300  # the longest that bringing playwright's own may take


@lru_cache(maxsize=1)
def found() -> str | None:
    """The path of a chromium, playwright's own before the system's; None if there is none."""
    return _own() or next((path for name in NAMES if (path := shutil.which(name))), None)


def _own() -> str | None:
    """Where playwright keeps the chromium that it brought."""
    if importlib.util.find_spec("playwright") is None:
        return None
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if os.path.exists(path) else None


def why_not() -> str | None:
    """Why the page cannot be tested in a browser, and what to install; None if it can."""
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed: pip install 'regard[dev]'"
    if found() is None:
        return (
            f"no chromium is installed (playwright's own, or {', '.join(NAMES)}): python -m playwright install chromium"
        )
    return None


def bring() -> str:
    """Install playwright's chromium where there is none; what became of it, in a sentence."""
    if (path := found()) is not None:
        return f"the page is tested in {path}"
    if importlib.util.find_spec("playwright") is not None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            command = [sys.executable, "-m", "playwright", "install", "chromium"]
            subprocess.run(command, capture_output=True, timeout=SECONDS)
        found.cache_clear()
    reason = why_not()
    return f"the page is not tested: {reason}" if reason else f"the page is tested in {found()}"


if __name__ == "__main__":
    print(bring())
