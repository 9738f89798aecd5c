"""Long Traces with kept queries and keys, made of invented tensors whose row states the native core computes."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from regard.inputs import inputs
from regard.mechanism import Mechanism
from regard.run.choose import observers
from regard.seeing.kept import Kept
from regard.seeing.statistics import Entropy, Overview, Received, TopK
from regard.seeing.trace import About, Layer, Tokens, Trace
from regard.seeing.watching import Watching
from regard.statistic import Axis, Statistic, View
from regard.text import mechanism as named

WATCH: tuple[Statistic, ...] = (Overview(), Entropy(), Received(), TopK(4))


def trace(
    length: int,
    layers: int = 1,
    heads: int = 2,
    width: int = 8,
    *,
    groups: int | None = None,
    watch: Sequence[Statistic] = WATCH,
    causal: bool = True,
    words: Sequence[str] = (" the", " blue", " creature", " roamed", ".", " naïve", "\n"),
) -> Trace:
    """A decoder of invented queries and keys [1, heads, length, width]."""
    positions = torch.arange(length)[None]
    axis = Axis(positions, torch.ones_like(positions, dtype=torch.bool), positions % len(words), positions == 0)
    text = [[words[i % len(words)] for i in range(length)]]
    made = []
    for index in range(layers):
        make = torch.Generator().manual_seed(index)
        q = torch.randn(1, heads, length, width, generator=make) * 1.5
        k = torch.randn(1, groups or heads, length, width, generator=make)
        watching = Watching(watch, observers(), Kept(observers()))
        view = View(1, heads, axis, axis, True)
        mechanism = named("causal" if causal else "dot")
        assert isinstance(mechanism, Mechanism)
        watching.absorb(mechanism, inputs(q, k), view, slice(0, length), 0, None)
        results, summaries = watching.finish(view)
        layer = Layer(f"h.{index}", index, "self", "decoder", list(range(heads)), "decoder", "decoder")
        layer.results, layer.summaries, layer.kept = results, summaries, watching.kept
        made.append(layer)
    about = {s.label: About.of(s) for s in watch}
    return Trace("invented", made, {"decoder": Tokens(text, axis)}, about, {"class": "Invented"})
