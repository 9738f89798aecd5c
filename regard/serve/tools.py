"""Calls of tools, in the forms in which models write them, out of a text."""

from __future__ import annotations

import json
import os
import re
from typing import Any

TAGGED = re.compile(r"<tool_call>\s*(.*?)\s*(?:</tool_call>|$)", re.DOTALL)  # Hermes, Qwen
LISTED = re.compile(r"\[TOOL_CALLS\]\s*(\[.*\])", re.DOTALL)  # Mistral
TAG = "<|python_tag|>"  # Llama 3
MARKS = ("<tool_call>", "[TOOL_CALLS]", TAG)


def tool_calls(text: str) -> tuple[str, list[dict[str, Any]]]:
    """(the text without its calls, the calls in OpenAI's form); the text as it is where it holds no whole call."""
    listed = LISTED.search(text)
    if listed:
        calls = _read(listed.group(1))
        return (text[: listed.start()].strip(), calls) if calls else (text, [])
    tagged = list(TAGGED.finditer(text))
    if tagged:
        calls = [call for match in tagged for call in _read(match.group(1))]
        return (TAGGED.sub("", text).strip(), calls) if calls else (text, [])
    bare = text.replace(TAG, "").strip()
    if bare.startswith("{"):
        calls = _read(bare)
        return ("", calls) if calls else (text, [])
    return text, []


def _read(text: str) -> list[dict[str, Any]]:
    try:
        found = json.loads(text)
    except ValueError:
        return []
    calls = []
    for one in found if isinstance(found, list) else [found]:
        arguments = one.get("arguments", one.get("parameters")) if isinstance(one, dict) else None
        if not isinstance(arguments, dict | str) or not isinstance(one.get("name"), str):
            return []
        said = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        function = {"name": one["name"], "arguments": said}
        calls.append({"id": f"call_{os.urandom(9).hex()}", "type": "function", "function": function})
    return calls


def held_from(text: str) -> int:
    """Where a stream must hold a text back, since a call begins there or may."""
    if text.lstrip().startswith("{"):
        return 0
    first = len(text)
    for mark in MARKS:
        at = text.find(mark)
        if at < 0:
            at = next((len(text) - k for k in range(len(mark) - 1, 0, -1) if text.endswith(mark[:k])), len(text))
        first = min(first, at)
    return first
