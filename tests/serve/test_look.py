"""Attention of a served request is what `regard.attach` sees on the same tokens, whatever else goes on."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import regard
from regard.run import native
from regard.seeing.statistics import Entropy, Received, SinkMass
from regard.serve import look_plain
from regard.serve.request import Look, Request
from regard.serve.runner import Runner
from tests.hf.models import BY_NAME
from tests.serve.models import build, copied
from tests.serve.served import Served, greedy, prompts
from tests.serve.test_exact import preempting

EVERY = ("top", "entropy", "sink", "messages", "received")
NEW = 6


@pytest.fixture(scope="module", params=["llama", "gemma3", "gpt_oss", "gemma2"])
def pair(request: pytest.FixtureRequest) -> tuple[Any, Runner]:
    model = build(BY_NAME[request.param])
    return model, Runner(copied(model))


def truth(model: Any, tokens: list[int]) -> dict[str, torch.Tensor]:
    """Dense weights [layers, heads, rows, keys], and what regard's own statistics say of them."""
    with regard.attach(model, watch=[Entropy(), SinkMass(4), Received()], keep="qk") as trace, torch.no_grad():
        model(input_ids=torch.tensor([tokens]))
    n = len(tokens)
    layers = range(len(trace.layers))
    heads = trace.layers[0].heads
    weights = [[trace.weights(layer, head, slice(0, n), slice(0, n)) for head in heads] for layer in layers]
    found = {"weights": torch.stack([torch.stack([torch.as_tensor(w).squeeze() for w in of]) for of in weights])}
    for name, label in (("entropy", "entropy"), ("sink", "sink:4" if "sink:4" in trace.layers[0].results else "sink")):
        found[name] = torch.stack([layer.results[label]["rows"][0] for layer in trace.layers])
    return found


def check_rows(rows: list[Any], true: dict[str, torch.Tensor], look: Look, first: int) -> None:
    weights = true["weights"].double()
    layers = list(range(len(weights)) if look.layers is None else look.layers)
    mean = look.heads == "mean"
    for place, row in enumerate(rows):
        p = first + place
        assert row.position == p
        a = weights[layers][:, :, p]
        if isinstance(look.heads, tuple):
            a = a[:, list(look.heads)]
        together = a.mean(1, keepdim=True) if mean else a
        values, keys = row.results["top"]
        k = min(look.top_k, values.shape[-1])
        best = together.topk(min(k, together.shape[-1])).values
        off = (values.double()[..., : best.shape[-1]] - best).abs().max()
        assert off < 1e-5, f"row {p}: top differs by {off}"
        there = together.gather(-1, keys.long().clamp(max=together.shape[-1] - 1))
        assert (there - values).abs().max() < 1e-5
        entropy = true["entropy"][layers][:, :, p]
        entropy = entropy[:, list(look.heads)] if isinstance(look.heads, tuple) else entropy
        entropy = entropy.mean(1, keepdim=True) if mean else entropy
        assert torch.allclose(row.results["entropy"][0], entropy.float(), atol=1e-5)
        sink = true["sink"][layers][:, :, p]
        sink = sink[:, list(look.heads)] if isinstance(look.heads, tuple) else sink
        sink = sink.mean(1, keepdim=True) if mean else sink
        assert torch.allclose(row.results["sink"][0], sink.float(), atol=1e-5)
        ends = [*look.spans, (max((e for _, e in look.spans), default=0), a.shape[-1])]
        masses = torch.stack([together[..., b:e].sum(-1) for b, e in ends], -1)
        assert torch.allclose(row.results["messages"][0].double(), masses, atol=1e-5)


def check(served: Served, model: Any, request: Request, index: int = 0) -> None:
    events = [e for e in served.events if (e.request_id, e.index) == (request.id, index)]
    tokens = [*request.prompt, *(t for e in events for t in e.tokens)]
    true = truth(model, tokens)
    look = request.look
    assert look is not None
    check_rows([row for e in events for row in e.attention], true, look, len(request.prompt) - 1)
    told = [row for e in events for row in e.prompt_attention]
    if look.prompt:
        assert len(told) == len(request.prompt)
        check_rows(told, true, look, 0)
    else:
        assert not told
    received = events[-1].received
    assert received is not None and all(e.received is None for e in events[:-1])
    first, last = (0 if look.prompt else len(request.prompt) - 1), len(tokens) - 1
    weights = true["weights"].double()[list(look.layers or range(len(true["weights"])))]
    weights = weights.mean(1, keepdim=True) if look.heads == "mean" else weights
    weights = weights[:, list(look.heads)] if isinstance(look.heads, tuple) else weights
    expected = weights[:, :, first:last].sum(2)[..., :last]
    assert torch.allclose(received, expected, atol=1e-5 * (last - first))


def asked(count: int = 6) -> list[Request]:
    """Some ask, each another thing; some do not."""
    made = []
    for i, prompt in enumerate(prompts(count)):
        spans = ((0, len(prompt) // 2), (len(prompt) // 2, len(prompt)))
        heads: Any = ["mean", "all", (1, 3)][i % 3]
        layers = None if i % 2 else (1,)
        look = Look(EVERY, layers, heads, top_k=3 + i, sinks=4, prompt=i % 2 == 0, spans=spans)
        made.append(greedy(f"{i}", prompt, NEW, look=look if i != 4 else None))
    return made


def checked(served: Served, model: Any, requests: list[Request]) -> None:
    for request in requests:
        if request.look is not None:
            for index in range(request.n):
                check(served, model, request, index)


def test_in_a_batch_and_again_with_cached_prefixes(pair: tuple[Any, Runner]) -> None:
    model, runner = pair
    served = Served(runner)
    served.run(asked())
    checked(served, model, asked())
    from dataclasses import replace

    again = [replace(request, id=f"again{request.id}", n=2) for request in asked()]
    served.run(again)
    assert served.engine.scheduler.counters.reused_tokens > 0
    checked(served, model, again)


def test_in_chunks_and_preempted_at_every_step(pair: tuple[Any, Runner]) -> None:
    model, runner = pair
    served = Served(runner, token_budget=11)
    served.run(asked(), preempting())
    assert served.engine.scheduler.counters.preemptions > 5
    checked(served, model, asked())


def test_in_torch_and_in_strips_they_are_the_same(pair: tuple[Any, Runner], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "available", lambda: False)
    monkeypatch.setattr(look_plain, "CELLS", 300)
    model, runner = pair
    served = Served(runner)
    served.run(asked(3))
    checked(served, model, asked(3))


def test_guesses_that_are_wrong_leave_no_rows(pair: tuple[Any, Runner]) -> None:
    model, runner = pair
    prompt = [7, 8, 9, 7, 8, 9, 7, 8]
    look = Look(("top", "entropy", "sink", "messages"), top_k=4)
    served = Served(runner)
    served.run([greedy("a", prompt, 16, look=look, speculate=3)])
    rows = [row for e in served.events for row in e.attention]
    assert len(rows) == 16
    tokens = [*prompt, *served.tokens("a")]
    check_rows(rows, truth(model, tokens), look, len(prompt) - 1)


def test_looking_changes_no_token(pair: tuple[Any, Runner]) -> None:
    _, runner = pair
    seen, unseen = Served(runner), Served(runner)
    seen.run(asked())
    unseen.run([greedy(r.id, list(r.prompt), NEW) for r in asked()])
    for i in range(6):
        assert seen.tokens(f"{i}") == unseen.tokens(f"{i}")
