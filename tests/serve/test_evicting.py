"""Serving with a cache policy: the text of regard.cache under generate, pages given back, refusals by name."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

import regard
from regard.errors import UserError
from regard.serve.command import Options, serving
from tests.serve.server import running

WORDS = "Prince Andrew looked at the officer and at the door, and then he looked at the officer again. "
PROMPTS = (WORDS * 3, "The door was open, and " + WORDS * 5, WORDS)
KEEPING = Options(memory=8 << 20, max_length=400, reuse=False, max_running=4, token_budget=64)


def posted(address: str, **body: Any) -> dict[str, Any]:
    data = json.dumps({"model": "regard-default", "temperature": 0, **body}).encode()
    request = urllib.request.Request(f"{address}/v1/completions", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return dict(json.load(answer))


def written(policy: str, prompt: str, tokens: int) -> str:
    loaded = regard.load()
    ids = loaded.tokenizer(prompt, return_tensors="pt")
    cache = regard.cache(loaded.model, policy)
    out = loaded.model.generate(ids["input_ids"], past_key_values=cache, max_new_tokens=tokens, do_sample=False)
    return str(loaded.tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True))


@pytest.mark.parametrize("policy", ["h2o(0.25)", "ada(0.25, window=16)", "sinks(40)"])
def test_served_text_is_that_of_the_cache_under_generate(policy: str) -> None:
    with running(KEEPING, cache_policy=policy) as (address, service), ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda prompt: posted(address, prompt=prompt, max_tokens=10), PROMPTS))
    assert [answer["choices"][0]["text"] for answer in found] == [written(policy, prompt, 10) for prompt in PROMPTS]
    assert service.engine.scheduler.pool.used == 0


def test_what_a_head_gives_up_can_be_admitted_again_and_preemption_changes_no_text() -> None:
    """Pages for two prompts of those lengths, and four at once: they fit once each has read its prompt."""
    with running(replace(KEEPING, memory=1 << 20), cache_policy="snapkv(0.2, window=16)") as (address, service):
        pool = service.engine.scheduler.pool
        owned: list[int] = []
        advance = pool.advance

        def noted(table: Any, tokens: list[int], computed: int) -> None:
            advance(table, tokens, computed)
            if id(table) in pool.caches:
                owned.append(len(table.pages[0]))

        pool.advance = noted  # type: ignore[method-assign]
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(lambda _: posted(address, prompt=PROMPTS[1], max_tokens=24), range(4)))
    expected = written("snapkv(0.2, window=16)", PROMPTS[1], 24)
    assert [answer["choices"][0]["text"] for answer in found] == [expected] * 4
    assert owned[0] < 0.4 * pool.pages_for(found[0]["usage"]["prompt_tokens"])


def test_what_does_not_go_together_is_refused_by_name() -> None:
    for changed, said in (
        ({"reuse": True}, "--prefix-cache"),
        ({"page_dtype": "bfloat16"}, "--page-dtype bfloat16"),
        ({"weights": "int8"}, "--weights int8"),
        ({"cache_policy": "nosuch(0.5)"}, "nosuch"),
        ({"cache_policy": "h2o(0)"}, "budget"),
        ({"memory": 1000}, "give --memory more"),
    ):
        with pytest.raises(UserError, match=said.split(" (")[0].replace("(", r"\(")):
            serving(replace(KEEPING, **{"cache_policy": "h2o(0.25)", **changed}))
    with running(KEEPING, cache_policy="h2o(0.5)") as (address, _):
        for body, said in (({"n": 2}, "n"), ({"logprobs": 1, "echo": True, "prompt_logprobs": 1}, "prompt_logprobs")):
            with pytest.raises(urllib.error.HTTPError) as refused:
                posted(address, prompt="The door", max_tokens=2, **body)
            assert refused.value.code == 400 and said in refused.value.read().decode()
