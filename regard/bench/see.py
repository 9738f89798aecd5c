"""`regard bench see`: what watching everything costs, against the plain model and against eager attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from regard.bench.machine import available_bytes, describe, measured
from regard.errors import UserError

WORKER = "regard.bench.see_worker"
KINDS = ("plain", "watched", "eager")
EAGER_BYTES_PER_PAIR = 12 * 12 * 4 * 1.2  # 12 layers of 12 heads kept in float32, and what lies beside them


def run(
    lengths: Sequence[int], repeats: int, backend: str = "model", report: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Times and peaks at each length, every kind in turn, `repeats` times; medians and ratios to plain sdpa.

    Checks every weight against eager attention first and raises UserError if one is off by more than 1e-5. Eager is
    left out, and says so, where its weights would not fit into memory.
    """
    checked = measured(WORKER, {"check": True, "tokens": 300, "backend": backend})
    if checked.get("worst_weight", 1.0) > 1e-5:
        raise UserError(f"the weights are not those of eager attention ({checked}); nothing was timed")
    report(f"checked at 300 tokens: weights within {checked['worst_weight']:.1e}, same bits: {checked['same_bits']}")
    report(f"output by {checked['output']}; statistics by {', '.join(checked['watched_by'])}")
    rows = []
    for tokens in lengths:
        found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
        for turn in range(repeats):
            for kind in KINDS:
                if kind == "eager" and (turn or tokens * tokens * EAGER_BYTES_PER_PAIR > available_bytes()):
                    continue
                on = {"backend": backend} if kind == "watched" else {}
                result = measured(WORKER, {"kind": kind, "tokens": tokens, **on})
                found[kind].append(result)
                report(f"{tokens} tokens, {kind}: {_said(result)}")
        rows.append(_row(tokens, found))
    return {"machine": describe(), "backend": backend, "checked": checked, "rows": rows}


def _said(result: dict[str, Any]) -> str:
    if "failed" in result:
        return f"failed: {result['failed']}"
    return f"{result['seconds']:.2f} s, {result['peak_bytes'] / 2**30:.2f} GiB"


def _row(tokens: int, found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    row: dict[str, Any] = {"tokens": tokens, "eager_would_need_gib": tokens * tokens * EAGER_BYTES_PER_PAIR / 2**30}
    for kind, results in found.items():
        good = [result for result in results if "failed" not in result]
        if good:
            row[kind] = {name: median(result[name] for result in good) for name in ("seconds", "peak_bytes")}
    for kind in ("watched", "eager"):
        if kind in row and "plain" in row:
            pairs = [(a, b) for a, b in zip(found[kind], found["plain"]) if "failed" not in a and "failed" not in b]
            row[f"{kind}_time_ratio"] = median(a["seconds"] / b["seconds"] for a, b in pairs)
            row[f"{kind}_memory_ratio"] = row[kind]["peak_bytes"] / row["plain"]["peak_bytes"]
    return row


def table(result: dict[str, Any]) -> list[list[str]]:
    """Header and rows as text."""
    lines = [["tokens", "plain", "watched", "× time", "× memory", "eager with weights", "× time", "× memory"]]
    for row in result["rows"]:
        eager = _cell(row.get("eager")) if "eager" in row else f"needs {row['eager_would_need_gib']:.0f} GiB"
        ratios = [_ratio(row.get(f"{k}_{w}_ratio")) for k in ("watched", "eager") for w in ("time", "memory")]
        lines.append(
            [f"{row['tokens']:,}", _cell(row.get("plain")), _cell(row.get("watched")), *ratios[:2], eager, *ratios[2:]]
        )
    return lines


def _cell(found: dict[str, float] | None) -> str:
    return "failed" if found is None else f"{found['seconds']:.1f} s, {found['peak_bytes'] / 2**30:.2f} GiB"


def _ratio(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def plot(result: dict[str, Any], path: Path) -> None:
    """Time and peak memory against the number of tokens, as an image file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for place, (name, unit, scale) in enumerate((("seconds", "seconds", 1.0), ("peak_bytes", "peak GiB", 2.0**30))):
        axes = figure.add_subplot(1, 2, place + 1)
        for kind, label in (
            ("plain", "plain sdpa"),
            ("watched", "everything watched"),
            ("eager", "eager with weights"),
        ):
            points = [(row["tokens"], row[kind][name] / scale) for row in result["rows"] if kind in row]
            if points:
                axes.plot(*zip(*points), marker="o", label=label)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        lengths = [row["tokens"] for row in result["rows"]]
        axes.set_xticks(lengths, [f"{length:,}" for length in lengths])
        axes.set_xlabel("tokens")
        axes.set_ylabel(unit)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle("GPT-2 small's shape, one forward on the CPU")
    figure.savefig(path, dpi=120)
