"""Statistics of weights that a model made itself, against the same taken densely."""

from __future__ import annotations

import pytest
import torch

from regard.hf.own_code.absorb import absorb
from regard.seeing.statistics import standard
from regard.seeing.watching import Watching
from regard.statistic import Axis, View
from tests.hf.own_code.models import CASES, LONGFORMER, feed, seen_in
from tests.seeing.dense import dense_statistics


@pytest.mark.parametrize("name,length", [("bloom", 11), ("deberta_v2", 11), ("longformer", 30)])
def test_statistics_of_own_weights(name: str, length: int) -> None:
    model = next(c for c in [*CASES, LONGFORMER] if c.name == name).build()
    inputs = feed(length, "right")
    with torch.no_grad():
        _, seen, _ = seen_in(model, inputs)
    valid = inputs["attention_mask"].bool()
    axis = Axis(valid.long().cumsum(1) - 1, valid, inputs["input_ids"])
    for one in seen:
        view = View(2, 4, axis, axis, True)
        watching = Watching(standard())
        slots = slice(0, length)
        absorb(watching, one, view, slots, slots)
        results, _ = watching.finish(view)
        weights = one.weights()[:, :, :length, :length]
        dense = dense_statistics(weights, weights > 0, axis.positions, axis.positions, valid, axis.ids, None)
        for label in ("entropy", "max", "sink", "distance", "previous"):
            assert torch.allclose(results[label]["rows"].double(), dense[label], atol=1e-5), label
        assert torch.allclose(results["received"]["keys"], dense["received"], atol=1e-5)
        assert watching.used == {f"own code ({one.form})"}


def test_heads_are_chosen_and_padding_at_the_end_is_left_out() -> None:
    model, inputs = LONGFORMER.build(), feed(30)
    with torch.no_grad():
        _, seen, _ = seen_in(model, inputs)
    assert seen[0].shape[2] == 32
    everything = torch.ones(2, 30, dtype=torch.bool)
    axis = Axis(everything.long().cumsum(1) - 1, everything)
    view = View(2, 1, axis, axis, True)
    watching = Watching([s for s in standard() if s.label == "overview"])
    absorb(watching, seen[0], view, slice(0, 30), slice(0, 30), heads=[2])
    mean = watching.finish(view)[0]["overview"]["mean"]
    assert torch.equal(mean[:, 0], seen[0].weights()[:, 2, :30, :30])
