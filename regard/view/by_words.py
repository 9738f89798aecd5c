"""A Trace whose tokens are whole words: pieces merged, summed over keys and averaged over queries.

For words I and J with pieces i and j: A_IJ = mean_{i ∈ I} Σ_{j ∈ J} a_ij, so rows keep their sum. All statistics are
those of A.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from regard.errors import UserError
from regard.seeing.statistics import standard
from regard.seeing.trace import About, Layer, Tokens, Trace
from regard.statistic import Axis, Block, Statistic, View

PIECE = re.compile(r"^(?P<text>.*) (?P<nth>\d+)/(?P<of>\d+)$", re.DOTALL)


def by_words(trace: Trace, watch: Sequence[Statistic] | None = None) -> Trace:
    """The Trace of whole words. Raises UserError for several sequences, and TraceError where exact weights are not
    there (watch with keep="qk", or an overview as fine as the input is long)."""
    if trace.batches != 1:
        raise UserError(f"words are merged in one sequence at a time, and this Trace holds {trace.batches}")
    groups = {name: _groups(tokens) for name, tokens in trace.axes.items()}
    axes = {name: _merged(tokens, groups[name]) for name, tokens in trace.axes.items()}
    size = max((len(group) for group in groups.values()), default=1)
    watch = standard(resolution=max(128, size)) if watch is None else watch
    layers = [_layer(trace, layer, axes, groups, watch) for layer in trace.layers]
    there = {label for layer in layers for label in layer.results}
    statistics = {each.label: About.of(each) for each in watch if each.label in there}
    return Trace(trace.model, layers, axes, statistics, trace.made | {"tokens": "words, merged from their pieces"})


def starts_word(before: str | None, text: str, special: bool, special_before: bool) -> bool:
    """Whether a piece begins a word: after a blank, at a special token, where letters and signs meet, at each
    character of a script that is written without blanks, and not inside a character cut into bytes."""
    piece = PIECE.match(text)
    if piece and piece["nth"] != "1":
        return False
    if before is None or special or special_before or text[:1].isspace():
        return True
    if before.strip(" ") == "" or text.startswith("##"):  # a blank by itself begins the word after it
        return False
    if before[-1:].isspace():
        return True
    first, last = text.lstrip()[:1], before.rstrip()[-1:]
    if PIECE.match(before):
        last = before.rsplit(" ", 1)[0][-1:]
    return first.isalnum() != last.isalnum() or _alone(first) or _alone(last)


def _alone(character: str) -> bool:
    """Whether a character is a word of its own, as in Chinese and Japanese."""
    return unicodedata.category(character or " ") == "Lo" and unicodedata.east_asian_width(character) == "W"


def _groups(tokens: Tokens) -> list[list[int]]:
    """The slots of each word. What is no text stays as it is."""
    length = tokens.axis.length
    if tokens.kind != "text" or not tokens.text:
        return [[slot] for slot in range(length)]
    texts, valid = tokens.text[0], tokens.axis.valid[0].tolist()
    special = [False] * length if tokens.axis.special is None else tokens.axis.special[0].tolist()
    groups: list[list[int]] = []
    for slot in range(length):
        before = texts[slot - 1] if slot else None
        apart = not valid[slot] or slot == tokens.prompt
        if apart or starts_word(before, texts[slot], special[slot], bool(slot) and special[slot - 1]):
            groups.append([])
        groups[-1].append(slot)
    return groups


def _text(texts: list[str], group: list[int]) -> str:
    """The word of its pieces: characters that were cut are written once."""
    said = ""
    for slot in group:
        piece = PIECE.match(texts[slot])
        if piece is None:
            said += texts[slot].removeprefix("##") if said else texts[slot]
        elif piece["nth"] == "1":
            said += piece["text"]
    return said


def _merged(tokens: Tokens, groups: list[list[int]]) -> Tokens:
    axis, first = tokens.axis, [group[0] for group in groups]
    if len(groups) == axis.length:
        return tokens
    text = [_text(tokens.text[0], group) for group in groups]
    known: dict[str, int] = {}
    ids = torch.tensor([[known.setdefault(word.strip(), len(known)) for word in text]])
    valid = axis.valid[:, first]
    special = None if axis.special is None else axis.special[:, first]
    prompt = None if tokens.prompt is None else sum(1 for slot in first if slot < tokens.prompt)
    positions = valid.to(torch.int64).cumsum(1) - 1
    return replace(tokens, text=[text], axis=Axis(positions, valid, ids, special), prompt=prompt)


def _layer(
    trace: Trace,
    layer: Layer,
    axes: dict[str, Tokens],
    groups: dict[str, list[list[int]]],
    watch: Sequence[Statistic],
) -> Layer:
    rows, keys = (_membership(groups[name]) for name in (layer.query_axis, layer.key_axis))
    pieces = torch.stack([trace.weights(layer, head) for head in layer.heads]).double()
    seen = (rows @ _allowed(layer, pieces).double() @ keys.T) > 0
    weights = ((rows / rows.sum(1, keepdim=True)) @ pieces @ keys.T)[None]
    query, key = axes[layer.query_axis].axis, axes[layer.key_axis].axis
    view = View(1, len(layer.heads), query, key, layer.query_axis == layer.key_axis)
    block = Block(weights.float(), seen[None], slice(0, len(rows)), slice(0, len(keys)), query, key)
    made = replace(layer, results={}, summaries={}, undefined={}, kept=None)
    for statistic in watch:
        reason = statistic.undefined(view)
        if reason is not None:
            made.undefined[statistic.label] = reason
            continue
        results = statistic.finish(statistic.of_block(block, view), view)
        made.results[statistic.label] = results
        made.summaries[statistic.label] = statistic.summary(results, view)
    return made


def _allowed(layer: Layer, pieces: Tensor) -> Tensor:
    """Which pairs [heads, rows, keys] a query may see: as the overview counted them, else wherever a weight is."""
    overview = layer.results.get("overview")
    if overview is not None and not overview["shifts"].any():
        return overview["count"][0].expand_as(pieces) > 0
    return pieces > 0


def _membership(groups: list[list[int]]) -> Tensor:
    """float64 [words, slots]: 1 where a slot belongs to a word."""
    table = torch.zeros(len(groups), sum(map(len, groups)), dtype=torch.float64)
    for word, group in enumerate(groups):
        table[word, group] = 1
    return table
