"""The server as its clients meet it: the official openai client, streams, errors, limits, attention over HTTP."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from regard.serve.service import Service
from tests.serve.server import running

MODEL = "regard-default"
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, Service]]:
    with running() as found:
        yield found


@pytest.fixture(scope="module")
def client(server: tuple[str, Service]) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server[0]}/v1", api_key="none", max_retries=0, timeout=60) as made:
        yield made


def post(server: tuple[str, Service], path: str, body: Any, **more: Any) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx.post(server[0] + path, content=content, timeout=60, **more)


def greedy(client: openai.OpenAI, prompt: Any = "The old man", **more: Any) -> Any:
    given = {"model": MODEL, "prompt": prompt, "max_tokens": 12, "temperature": 0.0} | more
    return client.completions.create(**given)


def test_models_health_and_page(client: openai.OpenAI, server: tuple[str, Service]) -> None:
    assert [m.id for m in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).id == MODEL
    assert httpx.get(f"{server[0]}/health").json() == {"status": "ok"}
    page = httpx.get(server[0] + "/")
    assert page.headers["content-type"].startswith("text/html") and MODEL in page.text and "__" not in page.text


def test_a_completion_and_its_stream_say_the_same(client: openai.OpenAI) -> None:
    whole = greedy(client, n=2)
    assert whole.usage.completion_tokens == 24
    assert whole.choices[0].text == whole.choices[1].text and whole.choices[0].finish_reason == "length"
    text: dict[int, str] = {0: "", 1: ""}
    usage = None
    for chunk in greedy(client, n=2, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text[choice.index] += choice.text
    assert text == {0: whole.choices[0].text, 1: whole.choices[1].text}
    assert usage.completion_tokens == 24 and usage.prompt_tokens == whole.usage.prompt_tokens


def test_several_prompts_as_texts_and_as_ids(client: openai.OpenAI, server: tuple[str, Service]) -> None:
    texts = ["The old man", "A letter from"]
    ids = [post(server, "/tokenize", {"prompt": text}).json()["tokens"] for text in texts]
    assert [c.text for c in greedy(client, texts).choices] == [c.text for c in greedy(client, ids).choices]
    back = post(server, "/detokenize", {"tokens": ids[0]}).json()["prompt"]
    assert "The old man" in back


def test_the_same_seed_gives_the_same_text_whatever_else_runs(client: openai.OpenAI) -> None:
    asked = {"temperature": 1.0, "seed": 11, "top_p": 0.9, "max_tokens": 20}
    alone = greedy(client, **asked).choices[0].text
    among = greedy(client, ["Another text", "The old man", "A third"], **(asked | {"n": 2})).choices
    assert among[2].text == alone
    assert among[3].text != alone
    assert greedy(client, **(asked | {"seed": 12})).choices[0].text != alone


def test_echo_and_logprobs_of_the_prompt(client: openai.OpenAI) -> None:
    found = greedy(client, echo=True, logprobs=2, max_tokens=3).choices[0]
    told = found.logprobs
    assert found.text.startswith("The old man") or "The old man" in found.text
    assert told.token_logprobs[0] is None and all(p <= 0 for p in told.token_logprobs[1:])
    assert len(told.tokens) == len(told.token_logprobs) == len(told.top_logprobs) == len(told.text_offset)
    assert max(told.top_logprobs[-1].values()) == pytest.approx(told.token_logprobs[-1])
    only = greedy(client, echo=True, logprobs=1, max_tokens=0).choices[0]
    assert len(only.logprobs.tokens) == len(told.tokens) - 3
    assert only.logprobs.token_logprobs[1:] == pytest.approx(told.token_logprobs[1:-3], abs=1e-4)


def test_a_chat_and_its_stream(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who is there?"}]
    asked: Any = {"model": MODEL, "messages": messages, "max_tokens": 10, "temperature": 0}
    whole = client.chat.completions.create(**asked, logprobs=True, top_logprobs=2)
    assert whole.choices[0].message.role == "assistant" and whole.choices[0].finish_reason == "length"
    assert len(whole.choices[0].logprobs.content) == 10
    chunks = list(client.chat.completions.create(**asked, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == whole.choices[0].message.content


def test_stop_strings_end_a_text_and_are_cut(client: openai.OpenAI) -> None:
    whole = greedy(client, max_tokens=30).choices[0].text
    stop = whole[8:11]
    found = greedy(client, max_tokens=30, stop=[stop]).choices[0]
    assert found.finish_reason == "stop" and found.text == whole[: whole.index(stop)]
    parts = [c.choices[0].text for c in greedy(client, max_tokens=30, stop=[stop], stream=True)]
    assert "".join(parts) == found.text
    kept = greedy(client, max_tokens=30, stop=[stop], extra_body={"include_stop_str_in_output": True}).choices[0]
    assert kept.text == found.text + stop


def test_json_that_keeps_to_a_schema(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"age": {"type": "integer", "minimum": 0, "maximum": 99}, "kind": {"enum": ["cat", "dog"]}},
        "required": ["age", "kind"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "pet", "schema": schema}}
    asked = {"extra_body": {"response_format": form}, "max_tokens": 60, "temperature": 1.0, "seed": 5}
    for choice in greedy(client, n=2, **asked).choices:
        assert choice.finish_reason == "stop"
        pet = json.loads(choice.text)
        assert pet["kind"] in ("cat", "dog") and 0 <= pet["age"] <= 99
    assert greedy(client, extra_body={"regex": "(ab){3}"}).choices[0].text == "ababab"


def test_attention_comes_beside_each_choice(client: openai.OpenAI) -> None:
    asked = {"layers": [0, 2], "heads": "all", "statistics": ["top", "entropy", "received"], "top_k": 3, "prompt": True}
    whole = greedy(client, extra_body={"attention": asked}, max_tokens=5)
    seen = whole.choices[0].attention
    prompt = whole.usage.prompt_tokens
    assert seen["layers"] == [0, 2] and len(seen["heads"]) == 6
    assert [row["position"] for row in seen["rows"]] == list(range(prompt - 1, prompt + 4))
    assert [row["position"] for row in seen["prompt"]] == list(range(prompt))
    row = seen["rows"][0]
    assert len(row["weights"]) == 2 and len(row["weights"][0]) == 6 and len(row["weights"][0][0]) == 3
    assert all(0 <= w <= 1 for layer in row["weights"] for head in layer for w in head)
    assert all(key < prompt for layer in row["keys"] for head in layer for key in head)
    # Every row gives away a mass of one.
    for head in seen["received"][0]:
        assert sum(head) == pytest.approx(prompt + 4, abs=1e-3)
    rows = []
    for chunk in greedy(client, extra_body={"attention": asked}, max_tokens=5, stream=True):
        rows += chunk.choices[0].attention["rows"]
    assert [r["keys"] for r in rows] == [r["keys"] for r in seen["rows"]]


def test_attention_to_each_message_of_a_chat(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who is there?"}]
    found: Any = client.chat.completions.create(
        model=MODEL, messages=messages, max_tokens=4, extra_body={"attention": {"statistics": ["messages"]}}
    )
    seen = found.choices[0].attention
    assert len(seen["spans"]) == 2 and seen["spans"][0][0] == 0 and seen["spans"][0][1] == seen["spans"][1][0]
    for row in seen["rows"]:
        for layer in row["messages"]:
            assert len(layer[0]) == 3 and sum(layer[0]) == pytest.approx(1.0, abs=1e-4)


def test_attention_that_is_too_much_is_refused_or_cut_and_says_so(server: tuple[str, Service]) -> None:
    asked = {"prompt": "x", "attention": {"heads": "all", "top_k": 65}}
    answer = post(server, "/v1/completions", asked)
    assert answer.status_code == 400 and answer.json()["error"]["param"] == "attention.top_k"
    with running(look_bytes=3000) as small:
        body = {"prompt": "The old man", "max_tokens": 20, "attention": True}
        seen = post(small, "/v1/completions", body).json()["choices"][0]["attention"]
        assert 0 < len(seen["rows"]) < 20 and "limited to 3000 bytes" in seen["truncated"]


BAD: list[tuple[str, Any, int, str | None]] = [
    ("/v1/completions", b"{", 400, None),
    ("/v1/completions", b"[1]", 400, None),
    ("/v1/completions", b'{"prompt": "a", "temperature": NaN}', 400, None),
    ("/v1/completions", b"\xff\xfe", 400, None),
    ("/v1/completions", b"[" * 100_000, 400, None),
    ("/v1/completions", {}, 400, "prompt"),
    ("/v1/completions", {"prompt": []}, 400, "prompt"),
    ("/v1/completions", {"prompt": [["a"]]}, 400, "prompt"),
    ("/v1/completions", {"prompt": [1, 10**9]}, 400, "prompt"),
    ("/v1/completions", {"prompt": [[]]}, 400, "prompt"),
    ("/v1/completions", {"prompt": "a", "model": "other"}, 404, "model"),
    ("/v1/completions", {"prompt": "a", "nonsense": 1}, 400, "nonsense"),
    ("/v1/completions", {"prompt": "a", "max_tokens": -1}, 400, "max_tokens"),
    ("/v1/completions", {"prompt": "a", "max_tokens": 1.5}, 400, "max_tokens"),
    ("/v1/completions", {"prompt": "a", "max_tokens": True}, 400, "max_tokens"),
    ("/v1/completions", {"prompt": "a", "max_tokens": 10**6}, 400, "max_tokens"),
    ("/v1/completions", {"prompt": "a " * 5000}, 400, "prompt"),
    ("/v1/completions", {"prompt": "a", "temperature": -0.1}, 400, "temperature"),
    ("/v1/completions", {"prompt": "a", "temperature": "hot"}, 400, "temperature"),
    ("/v1/completions", {"prompt": "a", "temperature": 1e999}, 400, None),
    ("/v1/completions", {"prompt": "a", "top_p": 0}, 400, "top_p"),
    ("/v1/completions", {"prompt": "a", "n": 0}, 400, "n"),
    ("/v1/completions", {"prompt": "a", "n": 1000}, 400, "n"),
    ("/v1/completions", {"prompt": "a", "stop": [""]}, 400, "stop"),
    ("/v1/completions", {"prompt": "a", "stop": 5}, 400, "stop"),
    ("/v1/completions", {"prompt": "a", "logit_bias": {"x": 1}}, 400, "logit_bias"),
    ("/v1/completions", {"prompt": "a", "logprobs": 1000}, 400, "logprobs"),
    ("/v1/completions", {"prompt": "a", "stream_options": {"x": 1}}, 400, "stream_options.x"),
    ("/v1/completions", {"prompt": "a", "response_format": {"type": "xml"}}, 400, "response_format.type"),
    ("/v1/completions", {"prompt": "a", "regex": "("}, 400, "response_format"),
    ("/v1/completions", {"prompt": "a", "attention": {"layers": [99]}}, 400, "attention.layers"),
    ("/v1/completions", {"prompt": "a", "attention": {"heads": "some"}}, 400, "attention.heads"),
    ("/v1/completions", {"prompt": "a", "attention": {"statistics": ["mood"]}}, 400, "attention.statistics"),
    ("/v1/completions", {"prompt": "a", "attention": {"depth": 1}}, 400, "attention.depth"),
    ("/v1/completions", {"prompt": "a", "attention": 5}, 400, "attention"),
    ("/v1/chat/completions", {"messages": "hello"}, 400, "messages"),
    ("/v1/chat/completions", {"messages": [{"role": "king", "content": "a"}]}, 400, "messages[0].role"),
    ("/v1/chat/completions", {"messages": [{"role": "user"}]}, 400, "messages[0].content"),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}], "top_logprobs": 2}, 400, "top_logprobs"),
    ("/tokenize", {}, 400, "prompt"),
    ("/detokenize", {"tokens": [-1]}, 400, "tokens"),
    ("/nowhere", {}, 404, None),
]


@pytest.mark.parametrize(("path", "body", "status", "param"), BAD)
def test_bad_requests_name_the_field(
    server: tuple[str, Service], path: str, body: Any, status: int, param: str | None
) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).replace("Infinity", "1e999").encode()
    answer = post(server, path, content)
    assert answer.status_code == status, answer.text
    said = answer.json()["error"]
    assert said["message"] and (param is None or said["param"] == param), said


def test_limits_key_origin_and_queue() -> None:
    with running(api_key="secret", body_bytes=2000, max_running=1, max_waiting=2) as server:
        ask = {"prompt": "The old man", "max_tokens": 3}
        assert post(server, "/v1/completions", ask).status_code == 401
        key = {"Authorization": "Bearer secret"}
        assert post(server, "/v1/completions", ask, headers=key).status_code == 200
        assert post(server, "/v1/completions", {"prompt": "a" * 3000}, headers=key).status_code == 413
        foreign = key | {"Origin": "https://example.org"}
        assert post(server, "/v1/completions", ask, headers=foreign).status_code == 403
        many = {"prompt": ["a", "b", "c", "d"][:1] * 1, "max_tokens": 400}
        import threading

        answers: list[httpx.Response] = []
        threads = [
            threading.Thread(target=lambda: answers.append(post(server, "/v1/completions", many, headers=key)))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        codes = sorted(a.status_code for a in answers)
        assert codes[0] == 200 and codes[-1] == 429
        assert all(a.headers["Retry-After"] for a in answers if a.status_code == 429)


def test_a_deadline_is_an_error_and_a_client_that_leaves_frees_its_pages(server: tuple[str, Service]) -> None:
    ask = {"prompt": "The old man", "max_tokens": 1500, "ignore_eos": True}
    late = post(server, "/v1/completions", ask | {"timeout": 0.05})
    assert late.status_code == 504 and late.json()["error"]["code"] == "deadline"
    with httpx.stream("POST", f"{server[0]}/v1/completions", json=ask | {"stream": True}, timeout=30) as answer:
        next(answer.iter_lines())
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server[0]}/v1/completions", json=ask, timeout=0.2)
    scheduler = server[1].engine.scheduler
    until = time.monotonic() + 20
    while not scheduler.is_idle and time.monotonic() < until:
        time.sleep(0.01)
    assert scheduler.is_idle and scheduler.pool.used == 0


def test_metrics(client: openai.OpenAI, server: tuple[str, Service]) -> None:
    greedy(client)
    text = httpx.get(f"{server[0]}/metrics").text
    for name in (
        "time_to_first_token_seconds_count",
        "time_between_tokens_seconds_count",
        "pages_total",
        "preemptions",
    ):
        assert f"regard_{name}" in text
    assert 'regard_requests_finished_total{reason="length"}' in text


def test_stopping_lets_answers_finish() -> None:
    import threading

    with running() as server:
        got: list[httpx.Response] = []
        ask = {"prompt": "The old man", "max_tokens": 60, "ignore_eos": True}
        thread = threading.Thread(target=lambda: got.append(post(server, "/v1/completions", ask)))
        thread.start()
        while server[1].engine.scheduler.is_idle:
            time.sleep(0.005)
    thread.join()
    assert got[0].status_code == 200 and got[0].json()["usage"]["completion_tokens"] == 60
