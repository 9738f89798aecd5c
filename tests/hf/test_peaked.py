"""Peaked logits: weights against float64, within 1e-6 + 2.4e-7 · σ · a, σ the largest score a row could have."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from regard.hf import watcher
from regard.hf.attach import attach
from regard.hf.waiting import WaitingCalls
from regard.inputs import Inputs
from regard.mechanism import Mechanism
from regard.parts.scores import Dot, Softcap
from regard.run import native
from regard.seeing.statistics import Entropy, Maximum, Overview, Received, TopK
from regard.seeing.watching import Watching
from tests.hf.models import BY_NAME, feed

NAMES = ["gpt2", "llama", "mistral", "gemma2", "gpt_oss", "bert", "modernbert"]


def truth(mechanism: Mechanism, x: Inputs) -> tuple[Tensor, Tensor]:
    """(weights, σ) in float64, densely, from the queries and keys that the layer had."""
    q, k = x.q.double(), x.k.double().repeat_interleave(x.q.shape[1] // x.k.shape[1], 1)
    dot, *rest = mechanism.score
    assert isinstance(dot, Dot) and x.allowed is not None
    scores = q @ k.transpose(-1, -2) * dot.scale
    sigma = dot.scale * q.norm(dim=-1, keepdim=True) * k.norm(dim=-1).amax(-1)[..., None, None]
    for term in rest:
        assert isinstance(term, Softcap)
        scores = (scores / term.cap).tanh() * term.cap
    scores = scores.masked_fill(~x.allowed.dense(), -torch.inf)
    sink = getattr(mechanism.normaliser, "sink", None)
    if sink is not None:
        scores = torch.cat([scores, sink.double()[None, :, None, None].expand(*scores.shape[:3], 1)], -1)
    return scores.softmax(-1)[..., : k.shape[2]], sigma


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "strips"])
@pytest.mark.parametrize("std", [0.5, 1.5, 4.0])
@pytest.mark.parametrize("name", NAMES)
def test_peaked_weights_stay_within_the_bound(
    name: str, std: float, fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fused and not native.available():
        pytest.skip("this installation has no native core")
    if not fused:
        monkeypatch.setattr(watcher, "observers", lambda *names: ())
    case = BY_NAME[name]
    model = case.build(std=std)
    watch = [Overview(), Entropy(), Maximum(), Received(), TopK()]
    calls: list[tuple[Mechanism, Inputs]] = []
    absorb = Watching.absorb

    def noted(self: Watching, mechanism: Mechanism, x: Inputs, *more: Any) -> Tensor | None:
        calls.append((mechanism, x))
        return absorb(self, mechanism, x, *more)

    monkeypatch.setattr(Watching, "absorb", noted)
    monkeypatch.setattr(WaitingCalls, "add", lambda *call: False)  # each call goes by `absorb`
    with torch.no_grad(), attach(model, watch) as trace:
        model(**feed(case, length=33))
    for layer, call in zip(trace.layers, calls, strict=True):
        exact, sigma = truth(*call)
        bound = 1e-6 + 2.4e-7 * sigma * exact
        found = layer.results
        assert ((found["overview"]["max"] - exact).abs() <= bound).all()
        assert ((found["max"]["rows"] - exact.amax(-1)).abs() <= bound.amax(-1)).all()
        assert ((found["received"]["keys"] - exact.sum(-2)).abs() <= bound.sum(-2) + 1e-6).all()
        best = exact.sort(dim=-1, descending=True).values[..., :8]
        assert ((found["top"]["weights"] - best).abs() <= bound.amax(-1, keepdim=True)).all()
        entropy = torch.special.entr(exact).sum(-1)
        slack = (bound * (1 + exact.clamp(min=1e-12).log().abs())).sum(-1) + 1e-5
        assert ((found["entropy"]["rows"] - entropy).abs() <= slack).all()
