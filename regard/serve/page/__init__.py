"""The page at /: type, watch tokens arrive, and see what each attended to. One document, no other source."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path


def html(model: str, needs_key: bool) -> str:
    """The page for one model."""
    text = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")
    settings = json.dumps({"model": model, "needsKey": needs_key}).replace("<", "\\u003c")
    return text.replace("__MODEL__", escape(model)).replace("__SETTINGS__", settings)
