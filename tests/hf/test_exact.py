"""Every weight and every statistic of every architecture against transformers' own eager attention."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from regard.hf.attach import attach
from regard.seeing.trace import Trace
from tests.hf.models import CASES, Case, eager_attentions, feed

PADDINGS = [
    (case, padding)
    for case in CASES
    for padding in ((None, "left", "right") if case.feed in ("decoder", "encoder", "seq2seq", "clip") else (None,))
]


def seen_weights(trace: Trace) -> dict[str, list[Tensor]]:
    """The exact weights of a trace as eager gives them: by stack, a list over layers of [B,H,Tq,Tk]."""
    found: dict[str, list[Tensor]] = {}
    for layer in trace.layers:
        name = layer.stack + (" cross" if layer.kind == "cross" else "")
        batch = trace.axes[layer.query_axis].axis.positions.shape[0]
        each = [torch.stack([trace.weights(layer, h, batch=b) for h in layer.heads]) for b in range(batch)]
        found.setdefault(name, []).append(torch.stack(each))
    return found


def assert_same_weights(trace: Trace, eager: dict[str, list[Tensor]], bound: float = 1e-5) -> None:
    seen = seen_weights(trace)
    if "self" in eager:
        eager = {next(iter(seen)): eager["self"]}
    assert seen.keys() == eager.keys()
    for name, layers in eager.items():
        assert len(seen[name]) == len(layers), name
        for number, (a, b) in enumerate(zip(seen[name], layers, strict=True)):
            axis = next(
                trace.axes[x.query_axis].axis
                for x in trace.layers
                if x.stack + (" cross" if x.kind == "cross" else "") == name
            )
            valid = axis.valid[:, None, :, None]
            assert a.shape == b.shape, (name, number)
            worst = ((a - b) * valid).abs().max().item()
            assert worst <= bound, f"{name} layer {number}: {worst}"


@pytest.mark.parametrize("case,padding", PADDINGS, ids=[f"{c.name}-{p or 'plain'}" for c, p in PADDINGS])
def test_weights_equal_eager_attention(case: Case, padding: str | None) -> None:
    model, inputs = case.build(), feed(case, padding=padding)
    with torch.no_grad(), attach(model) as trace:
        model(**inputs)
    assert_same_weights(trace, eager_attentions(model, inputs))
    assert trace.made["not_reached"] == []
    assert trace.made["problems"] == []
