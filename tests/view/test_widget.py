"""The notebook's viewer: the page in a frame asks its widget, and the widget answers from the Trace."""

from __future__ import annotations

from importlib import resources
from typing import Any

import pytest
import torch

from regard.view.answers import Answers, unpacked
from regard.view.widget import reply, widget
from tests.view import long
from tests.view.browser import why_not
from tests.view.test_pyramid import dense

pytest.importorskip("anywidget")
REASON = why_not()


class Heard:
    def __init__(self) -> None:
        self.sent: list[tuple[dict[str, Any], list[bytes]]] = []

    def send(self, content: dict[str, Any], buffers: list[bytes] | None = None) -> None:
        self.sent.append((content, buffers or []))


def test_messages_are_answered_or_refused_by_number() -> None:
    trace, heard = long.trace(400), Heard()
    answers = Answers([("t", trace)])
    reply(heard, answers, {"regard": 7, "what": "row", "fields": {"layer": 0, "head": 1, "row": 300}})
    (content, (answer,)) = heard.sent[0]
    assert content == {"regard": 7}
    torch.testing.assert_close(torch.tensor(unpacked(answer)[1][:301]).double(), dense(trace, 0, 1)[300, :301])
    reply(heard, answers, {"regard": 8, "what": "row", "fields": {"layer": 9}})
    assert heard.sent[1][0]["regard"] == 8 and "layer is 9" in heard.sent[1][0]["error"]
    for junk in (None, [], {"regard": "x"}, {"what": "row"}):
        reply(heard, answers, junk)
    assert len(heard.sent) == 2


def test_a_trace_makes_a_widget_that_holds_its_page() -> None:
    made = long.trace(300).widget(height=500)
    assert made.height == 500 and '"via":"frame"' in made.page
    with pytest.raises(Exception, match="at least one"):
        widget([])


@pytest.mark.skipif(REASON is not None, reason=str(REASON))
def test_the_widgets_module_carries_questions_and_answers(browser: Any) -> None:
    """The module in a page that plays the notebook: its model's messages go to Python and back."""
    trace = long.trace(1500)
    made, answers = trace.widget(height=900), Answers([("t", trace)])
    page = browser.new_page(viewport={"width": 1200, "height": 950})
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))

    def python(asked: dict[str, Any]) -> dict[str, Any]:
        heard = Heard()
        reply(heard, answers, asked)
        content, buffers = heard.sent[0]
        return {"content": content, "bytes": list(buffers[0]) if buffers else None}

    page.expose_function("python", python)
    page.set_content("<!doctype html><div id=cell></div>")
    module = resources.files("regard.view").joinpath("widget.js").read_text("utf-8")
    start = """({ page, height }) => {
        const heard = [], model = {
            get: (name) => ({ page, height })[name],
            on: (name, listener) => heard.push(listener), off: () => {},
            send: async (asked) => {
                const { content, bytes } = await window.python(asked);
                const view = bytes && new DataView(Uint8Array.from(bytes).buffer);
                heard.forEach((listener) => listener(content, view ? [view] : []));
            },
        };
        window.widget.render({ model, el: document.getElementById("cell") });
    }"""
    page.add_script_tag(content=module.replace("export default", "window.widget ="))
    page.evaluate(start, {"page": made.page, "height": 900})
    frame = page.frame_locator("iframe")
    frame.locator("body[data-ready=true]").wait_for()
    frame.locator(".token").nth(40).click()
    frame.locator("#row-body .bars .value").first.wait_for()
    row = page.frames[1].evaluate("window.regard.state.row")
    told = frame.locator("#row-body .bars .value").first.inner_text()
    assert float(told) == pytest.approx(float(dense(trace, 0, 0)[row].max()), rel=5e-3)
    page.close()
    assert errors == []
