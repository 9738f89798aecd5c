"""docs/models.md from the rows of a census: every family, how it is seen, and why not the rest."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from scripts.census.compare import BOUND

HEAD = """# Which models can be seen

Made by `make models` (transformers {version}): a tiny model of each family is built from its config, with weights drawn
anew, run on two inputs, padded and not, watched, and every weight held against eager attention, against what the
model returns as its attentions, or against the scores caught in its code. *Exact*: every weight of every attention
module that ran within 1e-5, and outputs the same bits. A model that differs by more is run in float64 as well, which
tells rounding from a mistake, and is called wrong all the same. *Own code*: seen where the model makes its weights,
whose memory is the model's own.
`regard see MODEL --check` says the same of one model without running it. Families with a tower of timm were run with
timm 1.0.31 and torchvision 0.28.0 beside regard, which does not install them.

{counts}

| family | model | verdict | how it is seen | held against | worst error | what is not seen, and why |
|---|---|---|---|---|---|---|
"""


def verdict(row: dict[str, Any]) -> str:
    """One word on a row: exact, partly, wrong, refused, none (no attention), traceback (in the watching), not run."""
    if row.get("problem", "").startswith("refused"):
        return "refused"
    if not row.get("could_run") or row["problem"].startswith("not "):
        return "not run"
    if row["problem"]:
        return "traceback"
    if not row["same_bits"] or row["error"] > BOUND:
        return "wrong"
    if not row["seen"]:
        return "refused" if row["unseen"] else "no attention"
    return "partly" if row["unseen"] else "exact"


def write(rows: dict[str, list[dict[str, Any]]], families: list[str], version: str, path: Path) -> None:
    """The page of these rows by family; a family without a row keeps the line it has, or is told as not run."""
    lines, verdicts, before = [], Counter[str](), kept(path)
    for family in sorted({*families, *rows, *before}):
        if family not in rows and family in before:
            verdicts[before[family].split(" | ")[2]] += 1
            lines.append(before[family])
            continue
        for row in rows.get(family) or [{"family": family, "model": "", "problem": "not run: its turn did not come"}]:
            verdicts[verdict(row)] += 1
            lines.append(_line(row))
    counts = ", ".join(f"{count} {word}" for word, count in verdicts.most_common())
    text = HEAD.format(version=version, counts=f"{len(lines)} models of {len(families)} families: {counts}.")
    path.write_text(text + "\n".join(lines) + "\n", encoding="utf-8")


def kept(path: Path) -> dict[str, str]:
    """family -> its line on the page that is there."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    table = [line for line in lines if line.startswith("| ")][1:]
    return {line.split(" | ")[0].removeprefix("| "): line for line in table}


def _line(row: dict[str, Any]) -> str:
    seen = ", ".join(f"{how} {count}" for how, count in row.get("seen", {}).items())
    reasons = sorted({f"{why}" for why in row.get("unseen", {}).values()})
    why = row.get("problem") or "; ".join(reasons)
    error = f"{row['error']:.0e}" if row.get("seen") else ""
    if row.get("error_in_double") is not None:
        error += f" (float64: {row['error_in_double']:.0e})"
    cells = [row["family"], row["model"], verdict(row), seen, ", ".join(row.get("held_against", [])), error, why[:300]]
    return "| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |"
