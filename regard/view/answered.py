"""The answer of a Trace as pictures show it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from regard.seeing.trace import Trace
from regard.view import words


def said(trace: Trace, batch: int) -> dict[str, Any] | None:
    """What the head said of one sequence, with every text safe to show; None where nothing asked it."""
    if not 0 <= batch < len(trace.answers):
        return None
    answer = trace.answers[batch]
    plain = asdict(answer) | {"rows": answer.rows}
    for each, names in ((plain, ("text", "note")), *((piece, ("text", "label")) for piece in plain["pieces"])):
        each |= {name: words.visible(each[name]) if each[name] else "" for name in names}
    for each in plain["choices"]:
        each["text"] = words.visible(each["text"])
    return plain


def line(answer: dict[str, Any]) -> str:
    """The answer and its confidence in one line."""
    confidence = "" if answer["confidence"] is None else f"  ({answer['confidence']:.3f})"
    return f"{answer['text']}{confidence}" if answer["text"] else answer["note"]
