"""axe-core finds no serious fault of accessibility. It is no part of the project: REGARD_AXE names its axe.min.js."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from regard.view.page import html
from tests.view import traces
from tests.view.browser import why_not

AXE = os.environ.get("REGARD_AXE", "")
REASON = why_not() or (None if AXE else "REGARD_AXE does not name axe.min.js (npm pack axe-core)")
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

VIEWS = (
    "#layer=2&head=5&row=7",
    "#grid=ranked&shape=lines&row=3",
    "#grid=maps&shape=layer",
    "#by=lookers&row=4&hide=1",
)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_view_has_a_serious_fault(browser: Any, tmp_path: Path, scheme: str) -> None:
    file = tmp_path / "page.html"
    file.write_text(html(traces.decoder(12, 4, 6, text=traces.SENTENCE)), encoding="utf-8")
    for view in VIEWS:
        page = browser.new_context(bypass_csp=True, color_scheme=scheme).new_page()
        page.goto(file.as_uri() + view)
        page.wait_for_selector("body[data-ready=true]")
        page.evaluate(Path(AXE).read_text(encoding="utf-8"))
        faults = page.evaluate("axe.run()")["violations"]
        page.context.close()
        bad = [(x["id"], x["nodes"][0]["html"][:200]) for x in faults if x["impact"] in ("serious", "critical")]
        assert bad == [], view
