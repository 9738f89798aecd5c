"""docs/models.md from the rows of a census: every family, how it is seen, and why not the rest."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from scripts.census.compare import BOUND

HEAD = """# Which models can be seen

Made by `make models` (transformers {version}): a tiny model of each family is built from its config, with weights drawn
anew, run on two inputs, padded and not, watched, and every weight held against eager attention, against what the
model returns as its attentions, or against the scores caught in its code. *Exact*: every weight of every attention
module that ran within 1e-5, and outputs the same bits. *Own code*: seen where the model makes its weights, whose memory
is the model's own. `regard see MODEL --check` says the same of one model without running it.

{counts}

| family | model | verdict | how it is seen | held against | worst error | what is not seen, and why |
|---|---|---|---|---|---|---|
"""


def verdict(row: dict[str, Any]) -> str:
    """One word on a row: exact, partly, wrong, refused, none (no attention), not run."""
    if row.get("problem", "").startswith("refused"):
        return "refused"
    if not row.get("could_run") or row.get("problem"):
        return "not run"
    if not row["same_bits"] or row["error"] > BOUND:
        return "wrong"
    if not row["seen"]:
        return "refused" if row["unseen"] else "no attention"
    return "partly" if row["unseen"] else "exact"


def write(rows: list[dict[str, Any]], families: list[str], version: str, path: Path) -> None:
    """The page of these rows; a family without a row is told as not run."""
    by_family: dict[str, list[dict[str, Any]]] = {name: [] for name in families}
    for row in rows:
        by_family.setdefault(row["family"], []).append(row)
    lines, verdicts = [], Counter[str]()
    for family, its in sorted(by_family.items()):
        for row in its or [{"family": family, "model": "", "problem": "the census has not reached it yet"}]:
            verdicts[verdict(row)] += 1
            lines.append(_line(row))
    counts = ", ".join(f"{count} {word}" for word, count in verdicts.most_common())
    text = HEAD.format(version=version, counts=f"{len(lines)} models of {len(families)} families: {counts}.")
    path.write_text(text + "\n".join(lines) + "\n", encoding="utf-8")


def _line(row: dict[str, Any]) -> str:
    seen = ", ".join(f"{how} {count}" for how, count in row.get("seen", {}).items())
    reasons = sorted({f"{why}" for why in row.get("unseen", {}).values()})
    why = row.get("problem") or "; ".join(reasons)
    error = f"{row['error']:.0e}" if row.get("seen") else ""
    cells = [row["family"], row["model"], verdict(row), seen, ", ".join(row.get("held_against", [])), error, why[:300]]
    return "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |"


def read(paths: list[Path]) -> list[dict[str, Any]]:
    """The rows of several logs, one JSON object a line; of one model the latest counts."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for path in paths:
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("{"):
                row = json.loads(line)
                found[(row["family"], row["model"])] = row
    return list(found.values())
