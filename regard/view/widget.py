"""The viewer in a notebook: the same page in a frame, whose questions this side answers.

One ES module serves Jupyter, VS Code, Colab and marimo by anywidget. The frame reaches neither notebook nor network; it
asks the module by messages, and the module asks Python.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import Any

from regard.errors import UserError
from regard.seeing.trace import Trace
from regard.view.answers import Answers
from regard.view.extras import needed
from regard.view.page import html


def widget(traces: Trace | Sequence[Trace], *, height: int = 900) -> Any:
    """A widget of one Trace or several, `height` pixels tall. Raises ImportError without anywidget."""
    anywidget, traitlets = needed("anywidget", "the notebook's viewer"), needed("traitlets", "the notebook's viewer")
    given = [traces] if isinstance(traces, Trace) else list(traces)
    if not given:
        raise UserError("a widget shows at least one Trace")
    answers = Answers([(trace.model or "attention", trace) for trace in given])

    class Viewer(anywidget.AnyWidget):  # type: ignore[name-defined]
        _esm = resources.files("regard.view").joinpath("widget.js").read_text("utf-8")
        page = traitlets.Unicode().tag(sync=True)
        height = traitlets.Int(900).tag(sync=True)

    made = Viewer(page=_page(answers), height=height)
    made.on_msg(lambda of, asked, _: reply(of, answers, asked))
    return made


def _page(answers: Answers) -> str:
    scene = answers.scene()
    scene["served"] = scene["served"] | {"via": "frame"}
    return html(scene)


def reply(of: Any, answers: Answers, asked: Any) -> None:
    """Answer a message {regard: its number, what, fields} by {regard} and a buffer, or by {regard, error}."""
    if not isinstance(asked, dict) or not isinstance(asked.get("regard"), int):
        return
    given = asked.get("fields")
    fields = given if isinstance(given, dict) else {}
    try:
        answer = answers.answer(str(asked.get("what")), {name: str(value) for name, value in fields.items()})
    except UserError as error:
        of.send({"regard": asked["regard"], "error": str(error)})
        return
    of.send({"regard": asked["regard"]}, buffers=[answer])
