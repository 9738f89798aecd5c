"""Which head to show first, and why."""

from __future__ import annotations

from typing import Any

from regard.seeing.trace import Layer, Trace

DETECTORS = ("induction", "duplicate", "previous")
CLEAR = 0.4


def pick(trace: Trace, batch: int = 0) -> dict[str, Any] | None:
    """{layer (its place), head, why, statistic} of the head that is most worth a first look; None without heads.

    In order: the most decided cross-attention head; the clearest induction, duplicate-token or previous-token head,
    where one scores at least 0.4; the most decided head away from sinks; the first head.
    """
    if not any(layer.heads for layer in trace.layers):
        return None
    cross = _most(trace, batch, "max", lambda layer: layer.kind == "cross", minus="special")
    if cross is not None:
        return _picked(cross, "max", "the most decided cross-attention head (strongest link - special tokens = {:.2f})")
    for label in DETECTORS:
        clear = _most(trace, batch, label)
        if clear is not None and clear[2] >= CLEAR:
            return _picked(clear, label, f"the highest {label} score, {{:.2f}}")
    away = _most(trace, batch, "max", minus="sink")
    if away is not None and away[2] > 0.1:
        return _picked(away, "max", "the most decided head away from the first tokens (strongest link - sink = {:.2f})")
    decided = _most(trace, batch, "max")
    if decided is not None:
        return _picked(decided, "max", "the most decided head: its strongest link holds {:.2f} on average")
    place = next(i for i, layer in enumerate(trace.layers) if layer.heads)
    return {"layer": place, "head": trace.layers[place].heads[0], "why": "the first head", "statistic": None}


def _picked(found: tuple[int, int, float], label: str, why: str) -> dict[str, Any]:
    return {"layer": found[0], "head": found[1], "why": why.format(found[2]), "statistic": label}


def _most(trace: Trace, batch: int, label: str, where: Any = None, minus: str | None = None) -> Any:
    """(layer place, head, number) of the largest summary, ties to the first; None where it was not watched."""
    best = None
    for place, layer in enumerate(trace.layers):
        if (where is not None and not where(layer)) or label not in layer.summaries:
            continue
        for head, value in zip(layer.heads, _numbers(layer, batch, label, minus), strict=True):
            if best is None or value > best[2]:
                best = (place, head, value)
    return best


def _numbers(layer: Layer, batch: int, label: str, minus: str | None) -> list[float]:
    numbers = layer.summaries[label][batch]
    if minus in layer.summaries:
        numbers = numbers - layer.summaries[minus][batch]
    return [float(x) for x in numbers]
