"""Two Traces beside each other, and their difference where they can be subtracted.

What `difference` returns ("regard comparison 1"): names; scenes, one per name, A, B and, where `aligned`, A − B, whose
`signed` is true; why: a sentence on why there is no difference, or on what it covers, else null; slots: where inputs
are not equally long, the slots of A and of B by axis that the difference holds, else null.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from regard.seeing.trace import Layer, Results, Trace, TraceError
from regard.view.aligned import Slots, cut, matched
from regard.view.scene import LIMIT_CHARACTERS, _statistics, fitted, scene

FORMAT = "regard comparison 1"


def difference(
    a: Trace,
    b: Trace,
    batch: int = 0,
    statistic: str | None = None,
    names: tuple[str, str] = ("A", "B"),
    limit: int = LIMIT_CHARACTERS,
) -> dict[str, Any]:
    """A, B and, where layers, heads and tokens are equally many, A − B; at most `limit` characters of arrays in all."""
    scenes = [scene(trace, batch, statistic, limit // 3) for trace in (a, b)]
    scenes[1]["statistic"] = scenes[0]["statistic"]
    why, minus, slots = why_not(a, b), None, None
    if why is None:
        minus = subtracted(a, b)
    elif (both := _by_token(a, b, batch)) is not None:
        slots = {name: [each[name] for each in both[2]] for name in a.axes}
        minus, why = subtracted(*both[:2]), _said(a, b, both[0])
    if minus is not None:
        scenes.append(
            {key: scenes[0][key] for key in ("format", "model", "made", "batch", "batches", "statistic")}
            | {"signed": True, "pick": most_changed(minus, batch), "statistics": _statistics(minus, batch), "links": []}
            | {"finds": [], "answer": None}
            | fitted(minus, batch, limit // 3)
        )
    shown = [*names, f"{names[0]} − {names[1]}"][: len(scenes)]
    told = {"aligned": minus is not None, "why": why, "slots": slots}
    return {"format": FORMAT, "names": shown, "scenes": scenes} | told


def _by_token(a: Trace, b: Trace, batch: int) -> tuple[Trace, Trace, tuple[Slots, Slots]] | None:
    """Both cut to the tokens that they share, where these are not equally many, and their slots; None where not."""
    if _heads(a) != _heads(b) or batch:
        return None
    slots = matched(a, b, batch)
    if slots is None:
        return None
    try:
        return cut(a, slots[0], batch), cut(b, slots[1], batch), slots
    except TraceError:
        return None


def _said(a: Trace, b: Trace, both: Trace) -> str:
    """What the difference of aligned inputs covers."""
    parts = []
    for name, tokens in both.axes.items():
        alone = [trace.axes[name].axis.length - tokens.axis.length for trace in (a, b)]
        parts.append(
            f"{tokens.axis.length} tokens of {name} (without {alone[0]} of the first and {alone[1]} of the second)"
        )
    return f"the difference is aligned by token and covers the {' and the '.join(parts)} that both have"


def why_not(a: Trace, b: Trace) -> str | None:
    """Why two Traces cannot be subtracted, or None if they can."""
    if same_cells(a, b):
        return None
    lengths = [{name: tokens.axis.length for name, tokens in trace.axes.items()} for trace in (a, b)]
    if lengths[0] != lengths[1]:
        said = [", ".join(f"{count} on axis {name!r}" for name, count in each.items()) for each in lengths]
        return f"no difference is drawn: the tokens are not equally many ({said[0]}, against {said[1]})"
    return "no difference is drawn: the layers or heads that were watched are not the same"


def most_changed(minus: Trace, batch: int) -> dict[str, Any] | None:
    """The head whose map changed most, in one weight; None where there are no maps."""
    best = None
    for place, layer in enumerate(minus.layers):
        if "overview" not in layer.results:
            continue
        changes = layer.results["overview"]["max"][batch].abs().flatten(1)
        for head, largest in zip(layer.heads, changes.amax(-1).tolist() if changes.shape[1] else []):
            if best is None or largest > best[2]:
                best = (place, head, largest)
    if best is None:
        return None
    why = f"the head with the largest change of one weight, {best[2]:.2f}"
    return {"layer": best[0], "head": best[1], "why": why, "statistic": None}


def subtracted(a: Trace, b: Trace) -> Trace:
    """The Trace of A − B: every statistic both have, except top-k, which cannot be subtracted."""
    layers = [_minus(x, y) for x, y in zip(a.layers, b.layers, strict=True)]
    known = {label: about for label, about in a.statistics.items() if label in b.statistics and about.shape != "top"}
    return Trace(a.model, layers, a.axes, known, a.made)


def _minus(a: Layer, b: Layer) -> Layer:
    results: Results = {}
    for label in a.results.keys() & b.results.keys():
        one, other = a.results[label], b.results[label]
        if "rest" in one or any(one[name].shape != other[name].shape for name in one):
            continue
        if "shifts" in one and not one["shifts"].equal(other["shifts"]):
            continue
        results[label] = {name: _part(name, one[name], other[name]) for name in one}
    results = {label: results[label] for label in a.results if label in results}
    summaries = {
        label: a.summaries[label] - b.summaries[label]
        for label in a.summaries
        if label in b.summaries and "rest" not in a.results.get(label, {})
    }
    return Layer(a.name, a.index, a.kind, a.stack, a.heads, a.query_axis, a.key_axis, results, summaries, a.undefined)


def _part(name: str, a: Tensor, b: Tensor) -> Tensor:
    if name == "count":
        return a.maximum(b)
    return a if name == "shifts" else a - b


def same_cells(a: Trace, b: Trace) -> bool:
    """Whether two Traces have the same layers, heads and lengths, so that they can be subtracted."""
    lengths = [{name: tokens.axis.length for name, tokens in trace.axes.items()} for trace in (a, b)]
    return _heads(a) == _heads(b) and lengths[0] == lengths[1]


def _heads(trace: Trace) -> list[tuple[str, tuple[int, ...]]]:
    return [(layer.title, tuple(layer.heads)) for layer in trace.layers]
