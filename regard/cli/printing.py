"""What verbs print: progress on standard error, a result as JSON or as a table on standard output."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any


def progress(line: str) -> None:
    print(line, file=sys.stderr)


def as_text(value: Any) -> str:
    """JSON in which every character that moves a cursor, hides or reorders a line is written as its number."""
    text = json.dumps(value, ensure_ascii=False)
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def result_of(result: dict[str, Any], as_json: bool, table: Callable[[dict[str, Any]], list[list[str]]]) -> None:
    """Print a result whole as JSON, or its table, one line a row."""
    print(as_text(result) if as_json else "\n".join(" | ".join(line) for line in table(result)))
