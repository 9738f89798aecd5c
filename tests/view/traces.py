"""Traces made by hand from invented weights, for the tests of pictures."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from regard.seeing.statistics import standard
from regard.seeing.trace import About, Layer, Tokens, Trace
from regard.statistic import Axis, Block, Statistic, View

HOSTILE = [
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(2)>",
    "\"quoted\" 'single'",
    "&amp;&lt;b&gt;",
    "new\nline\ttab",
    "🦊👩‍🚀",
    "שלום\u202eabc",
    "long" * 120,
    "",
    "\ud800",
    "\x1b[31mred\x1b[0m\x07",
    "$\\frac{1}{2}$ ${alert(3)}`",
]

SENTENCE = ["<s>", "A", " fluffy", " blue", " creature", " roamed", " the", " ver", "dant", " forest", ".", "</s>"]


def axis(
    length: int, *, batch: int = 1, padding: int = 0, ids: Tensor | None = None, special: tuple[int, ...] = ()
) -> Axis:
    """An axis; the second sequence of a batch has `padding` slots of padding at the left."""
    valid = torch.ones(batch, length, dtype=torch.bool)
    valid[1:, :padding] = False
    positions = (valid.long().cumsum(-1) - 1).clamp(min=0)
    flags = torch.zeros_like(valid)
    flags[:, list(special)] = True
    return Axis(positions, valid, torch.arange(length).expand(batch, -1) if ids is None else ids, flags)


def layer_of(
    name: str,
    index: int,
    weights: Tensor,
    allowed: Tensor,
    axes: dict[str, Tokens],
    query: str,
    key: str,
    resolution: int,
    watch: Sequence[Statistic] = (),
) -> Layer:
    """A Layer with the statistics to watch, by default the standard ones, of these weights [B,H,rows,keys]."""
    same = query == key
    view = View(weights.shape[0], weights.shape[1], axes[query].axis, axes[key].axis, same)
    allowed = allowed & view.key.valid[:, None, None, :]
    weights = weights * (allowed & view.query.valid[:, None, :, None])
    rows, keys = slice(0, weights.shape[2]), slice(0, weights.shape[3])
    block = Block(weights, allowed, rows, keys, view.query, view.key)
    stack = query if same else "decoder"
    layer = Layer(name, index, "self" if same else "cross", stack, list(range(weights.shape[1])), query, key)
    for statistic in watch or standard(resolution=resolution):
        reason = statistic.undefined(view)
        if reason is not None:
            layer.undefined[statistic.label] = reason
            continue
        results = statistic.finish(statistic.of_block(block, view), view)
        layer.results[statistic.label] = results
        layer.summaries[statistic.label] = statistic.summary(results, view)
    return layer


def trace_of(layers: list[Layer], axes: dict[str, Tokens], watch: Sequence[Statistic] = ()) -> Trace:
    statistics = {s.label: About.of(s) for s in watch or standard() if any(s.label in x.results for x in layers)}
    made = {"class": "Invented", "dtype": "float32", "backend": "by hand"}
    return Trace("invented", layers, axes, statistics, made)


def softmax_weights(scores: Tensor, allowed: Tensor) -> Tensor:
    """Rows that may see nothing get zeros."""
    return torch.softmax(scores.masked_fill(~allowed, -torch.inf), -1).nan_to_num(0.0)


def causal(axis: Axis) -> Tensor:
    """bool [B,1,T,T]."""
    allowed = axis.positions[:, None, :, None] >= axis.positions[:, None, None, :]
    return allowed & axis.valid[:, None, None, :]


def head_scores(kind: str, rows: int, keys: int, ids: Tensor, generator: torch.Generator) -> Tensor:
    """Scores [rows, keys] of a head of a known kind, with noise."""
    i, j = torch.arange(rows)[:, None], torch.arange(keys)[None, :]
    noise = torch.randn(rows, keys, generator=generator)
    if kind == "previous":
        return noise * 0.5 + 7.0 * (j == i - 1)
    if kind == "sink":
        return noise * 0.5 + 6.0 * (j == 0)
    if kind == "local":
        return noise * 0.5 - (i - j).abs() * 0.5
    if kind == "induction":
        before = torch.cat([torch.tensor([-1]), ids[: keys - 1]])
        return noise * 0.5 + 8.0 * (before[None, :] == ids[:rows, None]) + 3.0 * (j == 0)
    if kind == "diagonal":
        return noise + 6.0 * ((j * rows // keys) == i)
    return noise


KINDS = ("uniform", "local", "sink", "previous", "induction", "sink")


def decoder(*sizes: int, text: list[str] | None = None, **options: int) -> Trace:
    """A causal decoder whose heads are of known kinds; the second half of the tokens repeats the first."""
    return copy.copy(_decoder(*sizes, text=None if text is None else tuple(text), **options))


@lru_cache(maxsize=64)
def _decoder(
    length: int = 12,
    layers: int = 4,
    heads: int = 6,
    *,
    batch: int = 1,
    padding: int = 0,
    text: tuple[str, ...] | None = None,
    resolution: int = 128,
    seed: int = 0,
) -> Trace:
    generator = torch.Generator().manual_seed(seed)
    half = torch.randint(1, 10 * length, (-(-length // 2),), generator=generator)
    ids = torch.cat([half, half])[:length]
    words = text or [f" w{int(i)}" for i in ids]
    over = axis(length, batch=batch, padding=padding, ids=ids.expand(batch, -1), special=(0,) if length > 1 else ())
    axes = {"decoder": Tokens([list(words) for _ in range(batch)], over)}
    allowed = causal(over)
    built = []
    for index in range(layers):
        kinds = [KINDS[(index * 5 + head) % len(KINDS)] for head in range(heads)]
        scores = torch.stack([head_scores(kind, length, length, ids, generator) for kind in kinds])
        weights = softmax_weights(scores.expand(batch, -1, -1, -1), allowed)
        built.append(layer_of(f"layers.{index}", index, weights, allowed, axes, "decoder", "decoder", resolution))
    return trace_of(built, axes)


def translator(source: list[str], target: list[str], layers: int = 2, heads: int = 4) -> Trace:
    """Encoder, decoder and cross-attention layers."""
    generator = torch.Generator().manual_seed(1)
    axes = {
        "encoder": Tokens([source], axis(len(source), special=(len(source) - 1,))),
        "decoder": Tokens([target], axis(len(target), special=(0,))),
    }
    built = []
    for query, key in (("encoder", "encoder"), ("decoder", "decoder"), ("decoder", "encoder")):
        rows, keys = len(axes[query].text[0]), len(axes[key].text[0])
        allowed = torch.ones(1, 1, rows, keys, dtype=torch.bool)
        if query == key == "decoder":
            allowed = causal(axes[query].axis)
        for index in range(layers):
            kinds = ("diagonal", "uniform", "local", "sink")
            ids = torch.arange(max(rows, keys))
            scores = torch.stack(
                [head_scores(kinds[(h + index) % 4], rows, keys, ids, generator) for h in range(heads)]
            )
            weights = softmax_weights(scores[None], allowed)
            built.append(layer_of(f"{query}.{key}.{index}", index, weights, allowed, axes, query, key, resolution=128))
    return trace_of(built, axes)


def image(side: int = 7, layers: int = 3, heads: int = 4) -> Trace:
    """A vision encoder: one class token, then side × side patches, each looking around itself."""
    generator = torch.Generator().manual_seed(2)
    length = 1 + side * side
    text = ["[CLS]"] + [f"{r},{c}" for r in range(side) for c in range(side)]
    over = axis(length, special=(0,))
    over = Axis(over.positions, over.valid, None, over.special)
    axes = {"encoder": Tokens([text], over, "patches", (side, side))}
    allowed = torch.ones(1, 1, length, length, dtype=torch.bool)
    places = torch.tensor([[side / 2, side / 2]] + [[r, c] for r in range(side) for c in range(side)]).float()
    built = []
    for index in range(layers):
        reach = torch.tensor([0.5, 1.0, 2.0, 8.0])[:heads, None, None]
        scores = -torch.cdist(places, places)[None].pow(2) / reach + torch.randn(
            heads, length, length, generator=generator
        )
        weights = softmax_weights(scores[None], allowed)
        built.append(layer_of(f"encoder.{index}", index, weights, allowed, axes, "encoder", "encoder", resolution=128))
    return trace_of(built, axes)


def hostile() -> Trace:
    """Tokens that try to break out of every format."""
    return decoder(len(HOSTILE), 2, 2, text=HOSTILE)


def watched(*watch: Statistic, length: int = 9) -> Trace:
    """One layer of two heads on text, watched by these statistics; norm-weighted ones take every value norm as 3."""
    over = axis(length)
    axes = {"decoder": Tokens([[f" w{i}" for i in range(length)]], over)}
    allowed = causal(over)
    weights = softmax_weights(torch.randn(1, 2, length, length, generator=torch.Generator().manual_seed(3)), allowed)
    layer = layer_of("layers.0", 0, weights, allowed, axes, "decoder", "decoder", 128, watch)
    for label, results in layer.results.items():
        for name, value in results.items() if label.endswith(":norm") else ():
            results[name] = 3 * value if value.is_floating_point() and name != "count" else value
    return trace_of([layer], axes, watch)
