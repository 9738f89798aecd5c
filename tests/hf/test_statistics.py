"""Every statistic of every architecture, by both paths (fused and strips), against a dense restatement."""

from __future__ import annotations

import math

import pytest
import torch

from regard.hf import watcher
from regard.hf.attach import attach
from regard.run import native
from regard.seeing.statistics import standard
from tests.hf.models import CASES, Case, eager_attentions, feed
from tests.seeing.dense import dense_overview, dense_statistics

PATHS = ["fused", "strips"]


@pytest.fixture(params=PATHS)
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Statistics by the fused native core where there is one, or always in strips."""
    if request.param == "strips":
        monkeypatch.setattr(watcher, "observers", lambda *names: ())
    elif not native.available():
        pytest.skip("this installation has no native core")
    return str(request.param)


class Tokenizer:
    """As much of a tokenizer as attach asks for."""

    all_special_ids = (0, 1, 2, 7)

    def convert_ids_to_tokens(self, token_id: int) -> str:
        return f"t{token_id}"

    def decode(self, ids: list[int], clean_up_tokenization_spaces: bool) -> str:
        return f"t{ids[0]}"


@pytest.mark.parametrize("padding", [None, "left", "right"])
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_statistics_equal_dense_ones(case: Case, padding: str | None, path: str) -> None:
    if padding and case.feed in ("image", "speech", "whisper"):
        pytest.skip("these inputs have no padding")
    model, inputs = case.build(), feed(case, padding=padding, length=21)
    with torch.no_grad(), attach(model, standard(resolution=8), tokenizer=Tokenizer()) as trace:
        model(**inputs)
    eager = eager_attentions(model, inputs)
    if "self" in eager:
        eager = {trace.layers[0].stack: eager["self"]}
    number: dict[str, int] = {}
    for layer in trace.layers:
        name = layer.stack + (" cross" if layer.kind == "cross" else "")
        weights = eager[name][number.get(name, 0)]
        number[name] = number.get(name, 0) + 1
        query, key = trace.axes[layer.query_axis].axis, trace.axes[layer.key_axis].axis
        allowed = weights > 0
        same = layer.kind == "self"
        expected = dense_statistics(
            weights,
            allowed,
            query.positions,
            key.positions,
            query.valid,
            query.ids if same else None,
            key.special,
        )
        n = weights.shape[-1]
        bounds = {"entropy": 1e-5 * (1 + math.log(n)), "distance": 1e-5 * n, "received": 1e-5 * weights.shape[-2]}
        bounds["span"] = bounds["entropy"] * n
        for label, result in layer.results.items():
            if label == "overview":
                mean, top = dense_overview(weights, allowed, query.valid, 8)
                assert (result["mean"] - mean).abs().max() <= 1e-5
                assert (result["max"] - top).abs().max() <= 1e-5
                continue
            value = next(iter(result.values()))
            valid = query.valid[:, None]
            assert label in expected, label
            wanted = expected[label][..., : value.shape[-1]] if label == "top" else expected[label]
            error = (value.double() - wanted).abs()
            if label == "span":
                error = torch.where(valid, error, 0.0)
            assert error.max() <= bounds.get(label, 1e-5), f"{name} {layer.index} {label}: {error.max()}"
        undefined = {"mass"} if trace.made["model_type"] != "gpt_oss" else set()
        undefined |= {"distance", "distances", "previous"} if not same else set()
        undefined |= {"duplicate", "induction"} if not same or query.ids is None else set()
        undefined |= {"special"} if key.special is None else set()
        assert layer.undefined.keys() == undefined
        assert layer.results.keys() == {s.label for s in standard()} - undefined
    assert trace.made["watched_by"] == (["strips"] if path == "strips" else ["native"])
