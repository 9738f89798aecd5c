"""Holding any attached model against its own eager attention, whatever its shape: layer by layer, call by call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_utils import AttentionInterface

from regard.hf.attach import attach
from regard.seeing.trace import Trace
from tests.hf.test_unchanged import assert_same_bits


def configs_of(model: Any) -> list[Any]:
    """Every configuration object of a model, once."""
    each = [getattr(m, "config", None) for m in model.modules()]
    return list({id(c): c for c in each if hasattr(c, "_attn_implementation_internal")}.values())


@contextmanager
def in_eager(model: Any) -> Iterator[None]:
    """All of the model's attention by its own eager functions, while the block runs."""
    before = [(config, config._attn_implementation_internal) for config in configs_of(model)]
    for config, _ in before:
        config._attn_implementation_internal = "eager"
    try:
        yield
    finally:
        for config, name in before:
            config._attn_implementation_internal = name


@contextmanager
def recorded() -> Iterator[list[tuple[Any, Tensor]]]:
    """(module, weights [B,H,Tq,Tk]) of every call of an attention function, in order."""
    calls: list[tuple[Any, Tensor]] = []
    own = AttentionInterface.get_interface

    def interface(self: Any, name: str, default: Any) -> Any:
        function = own(self, name, default)

        def recording(module: Any, *args: Any, **keywords: Any) -> Any:
            result = function(module, *args, **keywords)
            calls.append((module, result[1]))
            return result

        return recording

    AttentionInterface.get_interface = interface  # type: ignore[method-assign]
    try:
        yield calls
    finally:
        AttentionInterface.get_interface = own  # type: ignore[method-assign]


def assert_exact(model: Any, inputs: dict[str, Any], bound: float = 1e-5) -> Trace:
    """The model's outputs keep their bits, and every weight of every call is within `bound` of its eager attention's.

    Rows that are padding, or that may attend to nothing, are not compared, nor layers that attend in their own code.
    """
    with torch.no_grad():
        plain = model(**inputs)
        with attach(model) as trace:
            watched = model(**inputs)
        assert_same_bits(plain, watched)
        with in_eager(model), recorded() as calls:
            model(**inputs)
    modules, seen = dict(model.named_modules()), dict.fromkeys(range(len(calls)), False)
    for layer in trace.layers:
        number = next((i for i, (m, _) in enumerate(calls) if m is modules[layer.name] and not seen[i]), None)
        if number is None:
            assert not any(m is modules[layer.name] for m, _ in calls), layer.name
            continue
        seen[number] = True
        rows = trace.axes[layer.query_axis].axis
        heads = [[trace.weights(layer, h, batch=b) for h in layer.heads] for b in range(rows.positions.shape[0])]
        weights = torch.stack([torch.stack(each) for each in heads])
        eager = calls[number][1].float()
        assert weights.shape == eager.shape, (layer.name, weights.shape, eager.shape)
        counted = rows.valid[:, None, :, None] & (weights.sum(-1, keepdim=True) > 0)
        worst = float(((weights - eager) * counted).abs().max())
        assert worst <= bound, f"{layer.name}: {worst}"
    assert all(seen.values()), "a call of the model's attention was not seen"
    titles = [layer.title for layer in trace.layers]
    assert len(set(titles)) == len(titles), titles
    return trace
