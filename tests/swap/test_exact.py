"""A swapped model computes what a dense computation computes: a dozen architectures, at once and token by token."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as tf
from torch import Tensor

from regard.hf.attach import attach
from tests.hf.models import BY_NAME, GQA, Case, feed, lm
from tests.swap.dense import Weights, dense, softmax, stepwise

MORE = [
    Case("qwen2", lm(tf.Qwen2Config, tf.Qwen2ForCausalLM, **GQA)),
    Case("olmo2", lm(tf.Olmo2Config, tf.Olmo2ForCausalLM, **GQA)),
    Case("granite", lm(tf.GraniteConfig, tf.GraniteForCausalLM, **GQA)),
    Case("starcoder2", lm(tf.Starcoder2Config, tf.Starcoder2ForCausalLM, **GQA)),
]
NAMES = ("gpt2", "llama", "qwen3", "mistral", "gemma3", "phi3", "mixtral", "opt", "gpt_neox")
DECODERS = [*(BY_NAME[name] for name in NAMES), *MORE]
LENGTH = 14


def built(case: Case) -> tuple[Any, Tensor]:
    return case.build(std=0.12), feed(case, length=LENGTH, batch=2)["input_ids"]


def distance(scores: Tensor) -> Tensor:
    """p_i - p_j where the newest query stands at the newest key."""
    num_queries, num_keys = scores.shape[2:]
    return torch.arange(num_keys - num_queries, num_keys)[:, None] - torch.arange(num_keys)


def near_or_first(scores: Tensor, allowed: Tensor, module: Any) -> Tensor:
    keys = torch.arange(scores.shape[3])
    return softmax(scores, allowed & ((distance(scores) < 4) | (keys < 2)))


def alibi(scores: Tensor, allowed: Tensor, module: Any) -> Tensor:
    """Slopes 2^(-8 h / H), h = 1 … H, for a number of heads that is a power of two."""
    heads = scores.shape[1]
    slopes = 2.0 ** (-8.0 * torch.arange(1, heads + 1) / heads)
    return softmax(scores - slopes.double()[:, None, None] * distance(scores), allowed)


def three_largest(scores: Tensor, allowed: Tensor, module: Any) -> Tensor:
    hidden = scores.masked_fill(~allowed, -torch.inf)
    least = hidden.topk(min(3, hidden.shape[-1]), -1).values[..., -1:]
    return softmax(scores, allowed & (hidden >= least))


def near_blocks(scores: Tensor, allowed: Tensor, module: Any) -> Tensor:
    num_queries, num_keys = scores.shape[2:]
    query = torch.arange(num_keys - num_queries, num_keys)[:, None] // 4
    return softmax(scores, allowed & ((query - torch.arange(num_keys) // 4).abs() <= 1))


FORMS: dict[str, Weights] = {
    "window(4) | sinks(2)": near_or_first,
    "alibi & causal": alibi,
    "topk(3)": three_largest,
    "near_blocks(4, 1)": near_blocks,
}


@pytest.mark.parametrize("case", DECODERS, ids=lambda case: case.name)
def test_swapping_what_a_model_has_leaves_its_logits(case: Case) -> None:
    model, ids = built(case)
    with torch.no_grad():
        plain = model(ids).logits
        with attach(model, watch=(), mechanism="causal"):
            assert (model(ids).logits - plain).abs().max() <= 1e-5
            assert (stepwise(model, ids) - plain).abs().max() <= 1e-5


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", DECODERS, ids=lambda case: case.name)
def test_a_mechanism_equals_its_dense_computation(case: Case, form: str) -> None:
    model, ids = built(case)
    with torch.no_grad():
        with dense(model, FORMS[form]):
            expected, by_token = model(ids).logits, stepwise(model, ids)
        with attach(model, watch=(), mechanism=form):
            assert (model(ids).logits - expected).abs().max() <= 1e-5
            assert (stepwise(model, ids) - by_token).abs().max() <= 1e-5
        if case.name != "mistral":  # whose own window of 4 hides as much
            assert (model(ids).logits - expected).abs().max() > 1e-3


@pytest.mark.parametrize("form", ["window(4) | sinks(2)", "alibi & causal"])
def test_left_padding_changes_nothing(form: str) -> None:
    case = BY_NAME["llama"]
    model, inputs = case.build(std=0.12), feed(case, length=LENGTH, padding="left")
    mask = inputs["attention_mask"]
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad(), attach(model, watch=(), mechanism=form):
        together = model(**inputs, position_ids=positions).logits
        alone = model(inputs["input_ids"][:1, 3:]).logits
    assert (together[0, 3:] - alone[0]).abs().max() <= 1e-5


@pytest.mark.parametrize("name", ["mistral", "qwen2"])
def test_a_window_is_the_model_loaded_with_its_own(name: str) -> None:
    kinds = {"mistral": (tf.MistralConfig, tf.MistralForCausalLM), "qwen2": (tf.Qwen2Config, tf.Qwen2ForCausalLM)}
    config, model = kinds[name]
    own = {"sliding_window": 4} | ({} if name == "mistral" else {"use_sliding_window": True, "max_window_layers": 0})
    windowed = Case(name, lm(config, model, **GQA, **own)).build(std=0.12)
    plain = Case(name, lm(config, model, **GQA, sliding_window=None)).build(std=0.12)
    ids = feed(BY_NAME["llama"], length=LENGTH)["input_ids"]
    with torch.no_grad():
        expected, by_token = windowed(ids).logits, stepwise(windowed, ids)
        with attach(plain, watch=(), mechanism="window(4)"):
            assert (plain(ids).logits - expected).abs().max() <= 1e-5
            assert (stepwise(plain, ids) - by_token).abs().max() <= 1e-5


def test_plans_put_mechanisms_into_heads_and_layers() -> None:
    model, ids = built(BY_NAME["llama"])

    def mixed(scores: Tensor, allowed: Tensor, module: Any) -> Tensor:
        near = allowed & (distance(scores) < 3)
        seen = allowed.clone()
        if module.layer_idx == 0:
            seen[:, 1:3] = near[:, 1:3]
        return softmax(scores, seen) if module.layer_idx == 0 else alibi(scores, allowed, module)

    with torch.no_grad():
        with dense(model, mixed):
            expected, by_token = model(ids).logits, stepwise(model, ids)
        with attach(model, mechanism="0.1-2: window(3); 1: alibi & causal; *: own") as trace:
            assert (model(ids).logits - expected).abs().max() <= 1e-5
            assert (stepwise(model, ids) - by_token).abs().max() <= 1e-5
    assert float(trace.weights(0, 1)[10, :8].sum()) == 0.0 < float(trace.weights(0, 0)[10, :8].sum())


def test_a_state_reads_its_past_token_by_token_too() -> None:
    model, ids = built(BY_NAME["llama"])
    with torch.no_grad(), attach(model, watch=(), mechanism="linear_recurrent"):
        at_once, by_token = model(ids).logits, stepwise(model, ids)
    with torch.no_grad(), attach(model, watch=(), mechanism="linear & causal"):
        quadratic = model(ids).logits
    assert (at_once - quadratic).abs().max() <= 1e-4
    assert (by_token - at_once).abs().max() <= 1e-5
