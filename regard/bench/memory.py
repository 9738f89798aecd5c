"""`regard bench memory`: how the memory of each mechanism grows with the number of tokens, measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from math import log
from pathlib import Path
from typing import Any

from regard.bench.machine import available_bytes, describe, measured
from regard.bench.memory_worker import DENSE, FORMS, HEADS, WIDTH
from regard.errors import UserError
from regard.zoo import CATALOGUE, card

WORKER = "regard.bench.memory_worker"
SLACK = 4 << 20  # bytes: what an allocator keeps from one call to another
DENSE_BYTES_PER_PAIR = 4 * HEADS * 5  # scores, weights and what lies between them, in float32


def claiming() -> list[str]:
    """Every mechanism that can be called and whose card says that its memory grows as the number of tokens."""
    return [entry.name for entry in CATALOGUE.values() if entry.linear_memory and _callable(entry.name)]


def run(
    names: Sequence[str],
    lengths: Sequence[int],
    folder: Path,
    seconds: float = 300.0,
    backward: bool = False,
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """The peak of one call per mechanism and length, each in a fresh process, beside all weights at once.

    seconds: limit of one measurement. Results are kept in `folder` and not measured again.
    """
    if not names or not lengths or min(lengths) < 1:
        raise UserError("bench memory needs some mechanisms and lengths of at least 1 token")
    for name in names:
        if not _callable(card(name).name):
            raise UserError(f"{name} cannot be called: {card(name).refused}")
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in (*names, DENSE):
        row: dict[str, Any] = {"mechanism": name, "claim": "O(n²)" if name == DENSE else card(name).memory, "at": {}}
        for tokens in sorted(lengths):
            row["at"][str(tokens)] = _kept(folder, name, tokens, backward, seconds)
        row["growth"], row["linear"] = growth(row["at"]), linear(row["at"])
        rows.append(row)
        report(f"{name}: {', '.join(_said(found) for found in row['at'].values())}")
    return {
        "machine": describe(),
        "heads": HEADS,
        "width": WIDTH,
        "lengths": sorted(lengths),
        "backward": backward,
        "rows": rows,
    }


def growth(at: dict[str, dict[str, Any]]) -> float | None:
    """The exponent between the two longest lengths that were measured: 1 for linear, 2 for quadratic."""
    points = [(int(tokens), found["peak_bytes"]) for tokens, found in at.items() if found.get("peak_bytes")]
    if len(points) < 2:
        return None
    (n, small), (m, large) = points[-2:]
    return log(large / small) / log(m / n)


def linear(at: dict[str, dict[str, Any]]) -> bool | None:
    """Whether the longest length takes no more than its share of what the one before it took, SLACK aside.

    Shorter ones say nothing: strips are as large as the input until they reach their bound.
    """
    points = [(int(tokens), found["peak_bytes"]) for tokens, found in at.items() if "peak_bytes" in found]
    if len(points) < 2:
        return None
    (n, small), (m, large) = points[-2:]
    return bool(large <= small * m / n + SLACK)


def _callable(name: str) -> bool:
    return CATALOGUE[name].factory is not None or name in FORMS


def _kept(folder: Path, name: str, tokens: int, backward: bool, seconds: float) -> dict[str, Any]:
    path = folder / f"{name.replace(' ', '-')}-{tokens}{'-backward' if backward else ''}.json"
    if path.exists():
        return dict(json.loads(path.read_text("utf-8")))
    needed = DENSE_BYTES_PER_PAIR * tokens * tokens * (3 if backward else 1)
    if name == DENSE and needed > available_bytes() / 2:
        return {"needs_bytes": needed}
    found = measured(WORKER, {"name": name, "tokens": tokens, "backward": backward}, seconds)
    if "failed" not in found:
        path.write_text(json.dumps(found) + "\n", encoding="utf-8")
    return found


def table(result: dict[str, Any]) -> list[list[str]]:
    """Header and rows as text."""
    lengths = [str(tokens) for tokens in result["lengths"]]
    lines = [["mechanism", "claim", *(f"{int(tokens):,} tokens" for tokens in lengths), "grows as n to the", "linear"]]
    for row in result["rows"]:
        power = "–" if row["growth"] is None else f"{row['growth']:.2f}"
        lines.append(
            [
                row["mechanism"],
                row["claim"],
                *(_said(row["at"][tokens]) for tokens in lengths),
                power,
                SAID[row["linear"]],
            ]
        )
    return lines


SAID = {True: "yes", False: "no", None: "–"}


def _said(found: dict[str, Any]) -> str:
    if "failed" in found:
        return str(found["failed"])
    if "needs_bytes" in found:
        return f"needs about {found['needs_bytes'] / 2**30:.0f} GiB"
    return f"{found['peak_bytes'] / 2**20:.1f} MiB, {found['seconds']:.1f} s"
