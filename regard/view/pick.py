"""Which head to show first, and why."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from regard.seeing.trace import Layer, Trace

DETECTORS = ("induction", "duplicate", "previous")
CLEAR = 0.4


def pick(trace: Trace, batch: int = 0) -> dict[str, Any] | None:
    """{layer (its place), head, why, statistic} of the head that is most worth a first look; None without heads.

    In order: the most decided cross-attention head that looks at different keys; the clearest induction,
    duplicate-token or previous-token head, where one scores at least 0.4; the most decided head that looks at
    different keys; the first head.
    """
    if not any(layer.heads for layer in trace.layers):
        return None
    found = _decided(trace, batch, "cross")
    for label in DETECTORS if found is None else ():
        clear = _most(trace, partial(_number, label=label, batch=batch))
        if clear is not None and clear[2] >= CLEAR:
            why = f"the highest {trace.statistics[label].title or label} score, {clear[2]:.2f}"
            return {"layer": clear[0], "head": clear[1], "why": why, "statistic": label}
    found = found or _decided(trace, batch, None)
    if found is not None:
        return found
    place = next(i for i, layer in enumerate(trace.layers) if layer.heads)
    return {"layer": place, "head": trace.layers[place].heads[0], "why": "the first head", "statistic": None}


def _decided(trace: Trace, batch: int, kind: str | None) -> dict[str, Any] | None:
    """The head with the largest (mean strongest link - largest share that one key receives)."""

    def score(layer: Layer, at: int) -> float | None:
        strongest, share = (_number(layer, at, label, batch) for label in ("max", "received"))
        return None if strongest is None or kind not in (None, layer.kind) else strongest - (share or 0.0)

    best = _most(trace, score)
    if best is None:
        return None
    layer = trace.layers[best[0]]
    at = layer.heads.index(best[1])
    strongest, share = (_number(layer, at, label, batch) for label in ("max", "received"))
    why = f"decided: its strongest link holds {strongest:.2f} on average"
    if share is not None:
        why += f", and no key receives more than {share:.2f} of all"
    return {"layer": best[0], "head": best[1], "why": why, "statistic": "max"}


def _most(trace: Trace, score: Callable[[Layer, int], float | None]) -> tuple[int, int, float] | None:
    """(layer place, head, score) of the best head, ties to the first; None where no head has a score."""
    best = None
    for place, layer in enumerate(trace.layers):
        for at, head in enumerate(layer.heads):
            value = score(layer, at)
            if value is not None and (best is None or value > best[2]):
                best = (place, head, value)
    return best


def _number(layer: Layer, at: int, label: str, batch: int) -> float | None:
    return float(layer.summaries[label][batch, at]) if label in layer.summaries else None
