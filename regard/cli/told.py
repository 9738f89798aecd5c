"""What --json and --verbose say of a Trace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from regard.seeing.trace import Trace


def numbers(trace: Trace) -> dict[str, Any]:
    """Every head's number for every statistic, the tokens and the strongest links, as plain JSON."""
    from regard.view.links import strongest

    heads = [
        {"layer": layer.title, "module": layer.name, "head": head}
        | {label: round(float(value[:, place].mean()), 6) for label, value in layer.summaries.items()}
        for layer in trace.layers
        for place, head in enumerate(layer.heads)
    ]
    links = [
        {
            "layer": (layer := trace.layers[link.layer]).title,
            "head": link.head,
            "query": trace.axes[layer.query_axis].text[0][link.row],
            "key": trace.axes[layer.key_axis].text[0][link.key],
            "row": link.row,
            "column": link.key,
            "weight": round(link.weight, 6),
        }
        for link in strongest(trace, 20)
    ]
    tokens = {name: axis.text for name, axis in trace.axes.items()}
    found = {"model": trace.model, "made": trace.made, "tokens": tokens, "heads": heads, "links": links}
    return found | ({"answer": trace.answer.json()} if trace.answer is not None else {})


def verbose_lines(trace: Trace) -> str:
    made = trace.made
    lines = [
        f"output by {made['output']}; statistics by {', '.join(made['watched_by']) or 'nothing'}; {made['dtype']}",
        *(_passed_over(other) for other in made.get("passed_over", ())),
        *(f"not reached: {name}" for name in made["not_reached"]),
        *sorted({f"left out: {reason}" for layer in trace.layers for reason in layer.undefined.values()}),
    ]
    return "\n".join(lines)


def _passed_over(other: dict[str, Any]) -> str:
    layers = other["layers"]
    said = ", ".join(layers) if len(layers) < 4 else f"{layers[0]} and {len(layers) - 1} more"
    return f"{other['what']} of {said} by {other['taken']}, not {other['backend']}: {other['reason']}"
