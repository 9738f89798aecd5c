"""Finding a browser for the tests of the page."""

from __future__ import annotations

import importlib.util
import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def found() -> str | None:
    """The path of a chromium, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def why_not() -> str | None:
    """Why the page cannot be tested in a browser, and what to install; None if it can."""
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed: pip install 'regard[dev]'"
    if found() is None:
        return f"no chromium is installed (looked for {', '.join(NAMES)}): apt-get install chromium"
    return None
