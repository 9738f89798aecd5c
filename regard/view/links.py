"""The strongest links of a Trace: which token looked at which, in which head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from regard.seeing.trace import Layer, Trace

CANDIDATES = 16  # links of a head that are looked through for each one that is listed


@dataclass(frozen=True)
class Link:
    """One exact weight. layer: its place in the trace; row and key: slots of the layer's query and key axes."""

    layer: int
    head: int
    row: int
    key: int
    weight: float

    def json(self) -> dict[str, Any]:
        return dict(vars(self))


def strongest(
    trace: Trace,
    count: int,
    *,
    batch: int = 0,
    per_head: int = 2,
    skip_self: bool = True,
    skip_first: int = 1,
) -> list[Link]:
    """The `count` strongest links over all heads, at most `per_head` of each, strongest first.

    Of a head's links that read the same, only the strongest is listed. skip_self leaves out links of a token to
    itself, skip_first those to the first tokens (sinks), both where queries and keys are the same tokens; special keys
    are left out with skip_first > 0. Empty where no top-k was watched.
    """
    found: list[Link] = []
    for place, layer in enumerate(trace.layers):
        if "top" in layer.results:
            found += _of_layer(trace, place, layer, batch, per_head, skip_self, skip_first)
    found.sort(key=lambda link: (-link.weight, link.layer, link.head, link.row, link.key))
    return found[:count]


def _of_layer(
    trace: Trace, place: int, layer: Layer, batch: int, per_head: int, skip_self: bool, skip_first: int
) -> list[Link]:
    top = layer.results["top"]
    weights, keys = top["weights"][batch], top["keys"][batch].long()
    query, key = (trace.axes[name].axis for name in (layer.query_axis, layer.key_axis))
    at = keys.clamp(min=0)
    keep = (keys >= 0) & query.valid[batch][None, :, None]
    if layer.query_axis == layer.key_axis:
        key_position = key.positions[batch][at]
        keep &= ~((key_position == query.positions[batch][None, :, None]) & skip_self)
        keep &= key_position >= skip_first
    if key.special is not None and skip_first:
        keep &= ~key.special[batch][at]
    shown = torch.where(keep, weights, 0).flatten(1)
    links = []
    for head, order in enumerate(_highest(shown, per_head * CANDIDATES)):
        said: set[tuple[str, str]] = set()
        for index in order:
            row, nth = divmod(index, weights.shape[-1])
            weight, at_key = float(shown[head, index]), int(keys[head, row, nth])
            pair = (_text(trace, layer.query_axis, batch, row), _text(trace, layer.key_axis, batch, at_key))
            if weight > 0 and pair not in said and len(said) < per_head:
                said.add(pair)
                links.append(Link(place, layer.heads[head], row, at_key, weight))
    return links


def _highest(shown: Tensor, count: int) -> list[list[int]]:
    """Where each row's `count` largest numbers stand, the largest first, of equal ones the first: what a stable sort
    would begin with, from one pass for the least of them and a sort of few."""
    count = min(count, shown.shape[1])
    if not count:
        return [[] for _ in shown]
    least = shown.topk(count, sorted=False).values.amin(-1, keepdim=True)
    found = []
    for row, edge in zip(shown, least):
        above, equal = (row > edge).nonzero()[:, 0], (row == edge).nonzero()[:, 0]
        at = torch.cat([above, equal[: count - len(above)]])
        order = torch.sort(row[at], descending=True, stable=True).indices
        found.append([int(i) for i in at[order]])
    return found


def _text(trace: Trace, axis: str, batch: int, slot: int) -> str:
    """A token's text; where there is none, its slot, so that no two read the same."""
    text = trace.axes[axis].text
    return text[batch][slot] if batch < len(text) and slot < len(text[batch]) else str(slot)
