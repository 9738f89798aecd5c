"""`regard bench swap`: what smaller caches give back, what windows save, what deciding costs, what quality stays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from regard.bench.machine import describe
from regard.bench.swap import deciding, quality, windowed, writing
from regard.errors import UserError

PARTS = ("cache", "window", "statistics", "quality")


def run(
    parts: Sequence[str],
    context: int = 32768,
    budget: float = 0.125,
    repeats: int = 5,
    layers: int = 12,
    sources: quality.Sources | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """The parts that are asked for, each with its peers in the same run.

    layers: of the model whose window is measured, all of which cost the same. sources: what quality is measured on.
    """
    unknown = [part for part in parts if part not in PARTS]
    if unknown or not parts:
        raise UserError(f"bench swap measures {', '.join(PARTS)}, not {unknown or 'nothing'}")
    if not 0 < budget < 1 or context < 256:
        raise UserError(f"a budget above 0 and below 1 and a context of at least 256, not {budget} and {context}")
    result: dict[str, Any] = {"machine": describe(), "threads": torch.get_num_threads()}
    for part in parts:
        report(f"measuring {part}")
        match part:
            case "cache":
                result[part] = writing.cache_rows(context, budget, repeats)
            case "window":
                result[part] = windowed.window_rows(16384, layers, repeats)
            case "statistics":
                result[part] = deciding.statistics_rows(4096, repeats)
            case "quality":
                result[part] = quality.quality_rows(sources or quality.Sources(), report)
    return result


def table(result: dict[str, Any]) -> list[list[str]]:
    """Every part's rows, a head before each."""
    lines = []
    for part in PARTS:
        rows = result.get(part, [])
        if rows:
            lines += [[part], list(rows[0]), *([_said(value) for value in row.values()] for row in rows)]
    return lines


def _said(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
