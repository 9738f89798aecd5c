"""Watching changes nothing: outputs bit for bit, generation token for token, and no trace left behind."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.masking_utils import AttentionMaskInterface
from transformers.modeling_utils import AttentionInterface

from regard.hf.attach import attach
from regard.run.choose import fused_observer
from tests.hf.models import CASES, Case, feed

TEXT = ("decoder", "encoder", "seq2seq", "clip")
EVERY = [(c, p) for c in CASES for p in ((None, "left", "right") if c.feed in TEXT else (None,))]
GENERATING = [case for case in CASES if "generates" in case.traits]


def tensors_of(out: Any) -> list[Tensor]:
    """Every floating tensor of a model's output, nested ones too, caches left out."""
    if isinstance(out, Tensor):
        return [out] if out.is_floating_point() else []
    if isinstance(out, dict):
        return [t for name, part in out.items() if name != "past_key_values" for t in tensors_of(part)]
    return [t for part in out for t in tensors_of(part)] if isinstance(out, tuple | list) else []


def assert_same_bits(a: Any, b: Any) -> None:
    first, second = tensors_of(a), tensors_of(b)
    assert first and len(first) == len(second)
    assert all(torch.equal(x, y) for x, y in zip(first, second, strict=True))


def state_of(model: Any) -> dict[str, Any]:
    """What attaching could leave behind: implementations, hooks, instance attributes, registries."""
    return {
        "implementations": [getattr(getattr(m, "config", None), "_attn_implementation", None) for m in model.modules()],
        "configs": [id(getattr(m, "config", None)) for m in model.modules()],
        "hooks": [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()],
        "attributes": [sorted(vars(m)) for m in model.modules()],
        "attention": dict(AttentionInterface._global_mapping),
        "masks": dict(AttentionMaskInterface._global_mapping),
    }


@pytest.mark.parametrize("case,padding", EVERY, ids=[f"{c.name}-{p or 'plain'}" for c, p in EVERY])
def test_outputs_are_bit_identical_to_the_unattached_model(case: Case, padding: str | None) -> None:
    model, inputs = case.build(), feed(case, padding=padding)
    before = state_of(model)
    with torch.no_grad():
        plain = model(**inputs)
        with attach(model):
            watched = model(**inputs)
        with attach(model, watch=()):
            unwatched = model(**inputs)
        again = model(**inputs)
    assert_same_bits(plain, watched)
    assert_same_bits(plain, unwatched)
    assert_same_bits(plain, again)
    assert state_of(model) == before


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("name", ["gpt2", "llama", "bert", "t5"])
def test_the_model_keeps_its_own_implementation(name: str, implementation: str) -> None:
    case = next(c for c in CASES if c.name == name)
    model, inputs = case.build(), feed(case, padding="left")
    model.set_attn_implementation(implementation)
    with torch.no_grad():
        plain = model(**inputs)
        with attach(model):
            watched = model(**inputs)
    assert_same_bits(plain, watched)
    assert model.config._attn_implementation == implementation


@pytest.mark.parametrize("cache", ["dynamic", "static", "none"])
@pytest.mark.parametrize("case", GENERATING, ids=lambda c: c.name)
def test_generation_is_token_for_token_the_same(case: Case, cache: str) -> None:
    model, inputs = case.build(), feed(case, padding=None if case.feed == "whisper" else "left")
    inputs.pop("decoder_input_ids", None)
    settings: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    settings |= {"use_cache": False} if cache == "none" else {}
    if cache == "static":
        settings |= {"cache_implementation": "static", "disable_compile": True}
    plain = model.generate(**inputs, **settings)
    with attach(model) as trace:
        watched = model.generate(**inputs, **settings)
    assert torch.equal(plain, watched)
    stack = "decoder" if case.feed == "seq2seq" else trace.layers[-1].stack
    length = plain.shape[1] - 1
    last = [layer for layer in trace.layers if layer.stack == stack and layer.kind == "self"][-1]
    assert last.results["entropy"]["rows"].shape[2] == length
    assert torch.equal(trace.axes[last.query_axis].axis.ids[:, :length], plain[:, :length])


def test_sampling_sees_the_same_random_numbers() -> None:
    model = next(c for c in CASES if c.name == "llama").build()
    ids = torch.arange(5, 12)[None]
    settings: dict[str, Any] = {"max_new_tokens": 8, "do_sample": True, "pad_token_id": 0}
    torch.manual_seed(3)
    plain = model.generate(ids, **settings)
    torch.manual_seed(3)
    with attach(model):
        watched = model.generate(ids, **settings)
    assert torch.equal(plain, watched)


def test_training_sees_the_same_gradients_and_dropout() -> None:
    case = next(c for c in CASES if c.name == "gpt2")
    plain, watched = case.build(), case.build()
    ids = feed(case)["input_ids"]
    losses = []
    for model, watch in ((plain, False), (watched, True)):
        model.train()
        torch.manual_seed(5)
        if watch:
            with attach(model):
                loss = model(input_ids=ids, labels=ids).loss
                loss.backward()
        else:
            loss = model(input_ids=ids, labels=ids).loss
            loss.backward()
        losses.append(loss)
    assert torch.equal(losses[0], losses[1])
    pairs = zip(plain.parameters(), watched.parameters(), strict=True)
    assert all(torch.equal(a.grad, b.grad) for a, b in pairs)


def test_gradient_checkpointing_absorbs_each_row_once() -> None:
    case = next(c for c in CASES if c.name == "llama")
    model, ids = case.build(), feed(case)["input_ids"]
    with torch.no_grad(), attach(model) as once:
        model(input_ids=ids)
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable()
    model.train()
    with attach(model) as trace:
        model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    for a, b in zip(once["received"], trace["received"], strict=True):
        assert torch.allclose(a["keys"], b["keys"])


def test_the_model_is_restored_when_the_body_raises() -> None:
    model = next(c for c in CASES if c.name == "gemma3").build()
    before = state_of(model)
    with pytest.raises(RuntimeError, match="mine"), attach(model):
        raise RuntimeError("mine")
    assert state_of(model) == before


def test_a_deep_copy_of_the_model_is_independent_of_an_attached_one() -> None:
    case = next(c for c in CASES if c.name == "llama")
    model, inputs = case.build(), feed(case)
    with torch.no_grad():
        plain = model(**inputs)
        with attach(model) as trace:
            other = copy.deepcopy(model)
            model(**inputs)
        assert len(trace.layers) == 2
        other.set_attn_implementation("sdpa")
        assert_same_bits(plain, other(**inputs))


@pytest.mark.parametrize("backend", ["native", "strips", "auto"])
@pytest.mark.parametrize("name", ["gpt2", "mistral", "gemma2", "gpt_oss", "bert", "t5"])
def test_on_any_backend_watching_keeps_the_bits(name: str, backend: str) -> None:
    case = next(c for c in CASES if c.name == name)
    if backend == "native" and fused_observer(torch.device("cpu")) is None:
        pytest.skip("this installation has no native core")
    model, inputs = case.build(), feed(case, padding="left")
    with torch.no_grad():
        plain = model(**inputs)
        with attach(model, watch=(), backend=backend):
            unwatched = model(**inputs)
        with attach(model, backend=backend) as trace:
            watched = model(**inputs)
        with attach(model, backend=backend, layers=[1], heads=[2]):
            partly = model(**inputs)
    assert_same_bits(unwatched, watched)
    assert_same_bits(unwatched, partly)
    assert len(trace.layers) > 1
    mask = inputs["attention_mask"].bool() if case.feed != "seq2seq" else torch.ones(2, 7, dtype=torch.bool)
    name = "logits" if hasattr(plain, "logits") else "last_hidden_state"
    error = ((plain[name] - watched[name]).abs().amax(-1) * mask).max()
    assert error <= 1e-4 * (1 + plain[name].abs().max())


def test_a_swapped_mechanism_is_what_is_watched() -> None:
    model, inputs = next(c for c in CASES if c.name == "llama").build(), feed(CASES[0])
    with torch.no_grad(), attach(model, mechanism="window(3) | sinks(1)") as trace:
        model(**inputs)
    for layer in trace.layers:
        weights = trace.weights(layer, 0)
        rows, keys = torch.arange(11)[:, None], torch.arange(11)[None]
        seen = (keys <= rows) & ((rows - keys < 3) | (keys < 1))
        assert torch.equal(weights > 0, seen)
        assert torch.allclose(weights.sum(-1), torch.ones(11), atol=1e-6)
