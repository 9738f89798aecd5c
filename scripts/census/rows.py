"""The rows of a census on disk: one JSON object a line, each with what made it; a run can stop and go on later."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import transformers

Row = dict[str, Any]


@cache
def made_by() -> str:
    """What rows of today are made by: the version of transformers, and a hash of this package's code."""
    code = hashlib.sha1()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path.name not in ("__main__.py", "page.py"):
            code.update(path.read_bytes())
    return f"transformers {transformers.__version__}, census {code.hexdigest()[:8]}"


def append(path: Path, rows: Iterable[Row]) -> None:
    """Add rows to the file, with what made them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps({**row, "made_by": made_by()}) + "\n")


def read(path: Path, maker: str | None = None) -> dict[str, list[Row]]:
    """family -> its latest rows, one a model; with `maker` those alone that it made."""
    latest: dict[str, dict[str, Row]] = {}
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for row in map(json.loads, lines):
        if maker is None or row["made_by"] == maker:
            its = latest.setdefault(row["family"], {})
            its.pop("?", None)
            if row["model"] == "?":
                its.clear()
            its[row["model"]] = row
    return {family: list(its.values()) for family, its in latest.items()}
