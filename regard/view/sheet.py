"""A Trace's numbers as CSV: one row a head, or one row a pair of the heads that are asked for."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

from regard.errors import UserError
from regard.seeing.trace import Trace
from regard.view import words

MOST_PAIRS = 4_000_000
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def sheet(trace: Trace, heads: Sequence[tuple[int, int]] = ()) -> str:
    """CSV of `heads`, each (place of its layer, head): row, key, tokens and exact weight of every pair that has one.

    Without heads: a row for each head with the number of each statistic. A text that a spreadsheet could take for a
    formula begins with an apostrophe. Raises UserError for more pairs than a spreadsheet is good for, TraceError where
    weights were not kept.
    """
    lines = _pairs(trace, heads) if heads else _heads(trace)
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\r\n").writerows(lines)
    return out.getvalue()


def _heads(trace: Trace) -> Iterator[list[Any]]:
    labels = [label for label in trace.statistics if any(label in layer.summaries for layer in trace.layers)]
    yield ["layer", "head", "sequence", *labels]
    for layer in trace.layers:
        for at, head in enumerate(layer.heads):
            for batch in range(trace.batches):
                known = (layer.summaries.get(label) for label in labels)
                yield [layer.title, head, batch, *("" if x is None else repr(float(x[batch, at])) for x in known)]


def _pairs(trace: Trace, heads: Sequence[tuple[int, int]]) -> Iterator[list[Any]]:
    sizes = [
        trace.axes[trace.layers[place].query_axis].axis.length * trace.axes[trace.layers[place].key_axis].axis.length
        for place, _ in heads
    ]
    if sum(sizes) > MOST_PAIRS:
        raise UserError(f"{sum(sizes):,} pairs are too many for CSV; save the Trace as .safetensors and read weights()")
    yield ["layer", "head", "row", "key", "query token", "key token", "weight"]
    for place, head in heads:
        layer = trace.layers[place]
        query, key = (_texts(trace, name) for name in (layer.query_axis, layer.key_axis))
        weights = trace.weights(layer, head)
        for row, at in weights.nonzero().tolist():
            yield [layer.title, head, row, at, query[row], key[at], repr(float(weights[row, at]))]


def _texts(trace: Trace, name: str) -> list[str]:
    tokens = trace.axes[name]
    texts = [words.visible(text) for text in (tokens.text[0] if tokens.text else [])]
    texts = [f"'{text}" if text.startswith(FORMULA) else text for text in texts]
    return texts + [""] * (tokens.axis.length - len(texts))
