"""The fused step computes what the model's own code computes, and says which models it does not know."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from regard.errors import UserError
from regard.hf.load import load
from regard.serve.command import Options, serving
from regard.serve.request import Request, Sampling, Stopping
from regard.serve.runner import Runner
from tests.hf.models import BY_NAME
from tests.serve.models import CASES, build, copied
from tests.serve.served import Served, greedy, prompts

FUSED = ("llama", "mistral", "qwen2", "qwen3")
BY = {case.name: case for case in CASES} | BY_NAME


@pytest.mark.parametrize("name", FUSED)
def test_it_writes_what_the_models_own_code_writes(name: str) -> None:
    model = build(BY[name])
    answers = []
    for fuse in (True, False):
        runner = Runner(copied(model), fuse=fuse)
        assert (runner.fused is not None) == fuse
        served = Served(runner, token_budget=29)
        served.run([greedy(str(i), prompt, 9, logprobs=0) for i, prompt in enumerate(prompts(7))])
        events = sorted((e for e in served.events if e.tokens), key=lambda e: e.request_id)
        answers.append([(e.request_id, e.tokens, [round(c.logprob, 3) for c in e.chances]) for e in events])
    assert answers[0] == answers[1]


@pytest.mark.parametrize("pages", [torch.bfloat16, torch.float16])
def test_pages_of_half_the_size_hold_rounded_keys_and_values(pages: torch.dtype) -> None:
    model = build(BY["llama"])
    ids = prompts(3)[2]
    found = []
    for fuse in (True, False):
        served = Served(Runner(copied(model), dtype=pages, fuse=fuse))
        served.run([greedy("a", ids, 6, logprobs=0)])
        found.append([c.logprob for e in served.events for c in e.chances])
    assert found[0] == pytest.approx(found[1], abs=2e-2)


def test_rows_of_one_token_after_longer_chunks_are_attended_to_as_well() -> None:
    model = build(BY["llama"])
    runner = Runner(copied(model))
    served = Served(runner, token_budget=12)
    asked = [list(range(5, 5 + n)) for n in (11, 1, 13, 1)]
    served.run([greedy(str(i), prompt, 5) for i, prompt in enumerate(asked)])
    alone = Served(runner, reuse=False)
    for i, prompt in enumerate(asked):
        alone.run([greedy(str(i), prompt, 5)])
        assert served.tokens(str(i)) == alone.tokens(str(i))


@pytest.mark.parametrize("name,why", [("gpt2", "type gpt2"), ("gemma2", "type gemma2"), ("mixtral", "type mixtral")])
def test_other_models_run_their_own_code_and_it_is_said(name: str, why: str) -> None:
    runner = Runner(build(BY[name]))
    assert runner.fused is None and why in runner.how


def test_a_model_with_a_hook_runs_its_own_code() -> None:
    model = build(BY["llama"])
    seen: list[Any] = []
    model.model.layers[0].mlp.register_forward_hook(lambda *call: seen.append(call[0]))
    runner = Runner(model)
    assert runner.fused is None and "a hook on model.layers.0.mlp" in runner.how and seen


def bits_per_token(weights: str, texts: list[list[int]]) -> float:
    runner = Runner(load().model.float(), weights=weights)
    served = Served(runner, pages=400, token_budget=256)
    ask = Sampling(temperature=0.0), Stopping(max_tokens=1)
    served.run([Request(str(i), tuple(text), *ask, prompt_logprobs=0) for i, text in enumerate(texts)])
    told = [c.logprob for e in served.events for c in e.prompt_chances or ()]
    assert len(told) == sum(len(text) - 1 for text in texts)
    return -sum(told) / len(told) / math.log(2)


def test_int8_weights_cost_the_embedded_model_little() -> None:
    words = (
        "The old man walked to the river and sat down under a tree. It was a quiet morning, and nobody was there. He "
        "took a piece of bread out of his bag, and a small bird came near to see what he would do with it."
    )
    texts = [load().tokenizer(words)["input_ids"]]
    plain, rounded = bits_per_token("stored", texts), bits_per_token("int8", texts)
    assert abs(rounded - plain) < 0.02 * plain, f"{plain:.4f} bits a token became {rounded:.4f}"


def test_unknown_weights_are_refused() -> None:
    with pytest.raises(UserError, match="--weights int3: one of stored, float32, int8 is needed"):
        serving(Options(weights="int3"))
