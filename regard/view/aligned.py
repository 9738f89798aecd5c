"""Two Traces of inputs that are not equally long, cut to the tokens that both have, in the same order.

Tokens are matched as a text comparison matches lines: the longest runs first, none crossing. What is cut away is not
redistributed: a weight keeps its value, so rows need not sum to 1.
"""

from __future__ import annotations

from dataclasses import replace
from difflib import SequenceMatcher

import torch
from torch import Tensor

from regard.seeing.statistics import Overview
from regard.seeing.trace import About, Layer, Tokens, Trace
from regard.statistic import Axis, Block, View

MOST_TOKENS = 2048

Slots = dict[str, list[int]]
"""By the name of an axis, the slots that are kept of it."""


def matched(a: Trace, b: Trace, batch: int = 0) -> tuple[Slots, Slots] | None:
    """The slots of both that hold the same tokens; None where an axis is no text, is missing, or nothing matches."""
    one: Slots = {}
    other: Slots = {}
    if a.axes.keys() != b.axes.keys():
        return None
    for name in a.axes:
        texts = [_texts(trace.axes[name], batch) for trace in (a, b)]
        if texts[0] is None or texts[1] is None:
            return None
        blocks = SequenceMatcher(None, texts[0], texts[1], autojunk=False).get_matching_blocks()
        one[name] = [block.a + i for block in blocks for i in range(block.size)]
        other[name] = [block.b + i for block in blocks for i in range(block.size)]
        if not one[name]:
            return None
    return one, other


def _texts(tokens: Tokens, batch: int) -> list[str] | None:
    known = tokens.kind == "text" and batch < len(tokens.text) and tokens.axis.length <= MOST_TOKENS
    return tokens.text[batch] if known else None


def cut(trace: Trace, slots: Slots, batch: int = 0) -> Trace:
    """The Trace of one sequence with only these slots, and the map of its weights as the only statistic.

    Raises TraceError where exact weights are not known.
    """
    axes = {name: _cut_axis(tokens, slots[name], batch) for name, tokens in trace.axes.items()}
    resolution = max(len(kept) for kept in slots.values())
    layers = [_cut_layer(trace, layer, slots, axes, resolution, batch) for layer in trace.layers]
    return Trace(trace.model, layers, axes, {"overview": About.of(Overview(resolution))}, trace.made)


def _cut_axis(tokens: Tokens, slots: list[int], batch: int) -> Tokens:
    at, one = torch.tensor(slots), slice(batch, batch + 1)
    parts = [None if x is None else x[one][:, at] for x in (tokens.axis.ids, tokens.axis.special)]
    axis = Axis(tokens.axis.positions[one][:, at], tokens.axis.valid[one][:, at], *parts)
    text = [[tokens.text[batch][slot] for slot in slots]]
    bare = {part: None for part in ("grid", "prompt", "seconds", "picture", "wave", "spectrogram", "loss")}
    return replace(tokens, text=text, axis=axis, **bare)  # type: ignore[arg-type]


def _cut_layer(trace: Trace, layer: Layer, slots: Slots, axes: dict[str, Tokens], resolution: int, batch: int) -> Layer:
    rows, keys = slots[layer.query_axis], slots[layer.key_axis]
    weights = torch.stack([_cut_weights(trace, layer, head, rows, keys, batch) for head in layer.heads])[None]
    query, key = axes[layer.query_axis].axis, axes[layer.key_axis].axis
    view = View(1, len(layer.heads), query, key, layer.query_axis == layer.key_axis)
    block = Block(weights, weights > 0, slice(0, len(rows)), slice(0, len(keys)), query, key)
    statistic = Overview(resolution)
    results = statistic.finish(statistic.of_block(block, view), view)
    made = Layer(layer.name, layer.index, layer.kind, layer.stack, layer.heads, layer.query_axis, layer.key_axis)
    made.results, made.summaries = {"overview": results}, {"overview": statistic.summary(results, view)}
    return made


def _cut_weights(trace: Trace, layer: Layer, head: int, rows: list[int], keys: list[int], batch: int) -> Tensor:
    return trace.weights(layer, head, batch=batch)[rows][:, keys]
