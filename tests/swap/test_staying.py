"""Swaps that stay: the model computes what attach computes, writes with small caches, is saved and comes back."""

from __future__ import annotations

import copy
import gc
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import regard
from regard.errors import UserError
from regard.hf import seam
from regard.hf.attach import attach
from regard.swap.cache.layer import PolicyLayer
from regard.swap.cache.own_size import StateLayer
from regard.swap.staying import NAME, cache_of
from tests.hf.models import BY_NAME, feed
from tests.swap.dense import stepwise

FORMS = ("window(4) | sinks(2)", "window(5)", "linear_recurrent", "alibi & causal", "0: linear_recurrent; *: window(6)")
SETTINGS: dict[str, Any] = {"max_new_tokens": 12, "min_new_tokens": 12, "do_sample": False}


def built(name: str = "llama") -> tuple[Any, Tensor]:
    return BY_NAME[name].build(std=0.12), feed(BY_NAME[name], length=14)["input_ids"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["llama", "gpt2", "qwen3"])
def test_a_swapped_model_computes_what_attach_computes(name: str, form: str) -> None:
    model, ids = built(name)
    with torch.no_grad(), attach(model, watch=(), mechanism=form):
        expected, wrote = model(ids).logits, model.generate(ids[:1], **SETTINGS)
    assert regard.swap(model, form) is model
    with torch.no_grad():
        assert (model(ids).logits - expected).abs().max() <= 1e-5
        assert (stepwise(model, ids) - expected).abs().max() <= 1e-5
        assert torch.equal(model.generate(ids[:1], **SETTINGS), wrote)
        out = model(ids[:, :6], past_key_values=cache_of(model), use_cache=True)
        logits = [out.logits]
        for at in range(6, ids.shape[1]):
            out = model(ids[:, at : at + 1], past_key_values=out.past_key_values, use_cache=True)
            logits.append(out.logits)
    assert (torch.cat(logits, 1) - expected).abs().max() <= 1e-5


def test_a_cache_has_the_mechanisms_own_size() -> None:
    model, ids = built()
    regard.swap(model, "0: linear_recurrent; *: window(4) | sinks(2)")
    out = model.generate(ids[:1], return_dict_in_generate=True, **SETTINGS)
    state, window = out.past_key_values.layers
    assert isinstance(state, StateLayer) and isinstance(window, PolicyLayer)
    assert state.nbytes == 4 * 16 * 9 * 4  # its maps make two features of each channel
    seen = ids.shape[1] + 11
    assert all(window.kept(0, g) == [0, 1, *range(seen - 3, seen)] for g in range(2))


def test_a_swapped_model_is_saved_and_comes_back(tmp_path: Path) -> None:
    model, ids = built()
    regard.swap(model, "0: gla; *: window(6)")
    module = getattr(model, NAME)["0"]
    maps = {f"{t}_{what}" for t in "qk" for what in ("weight", "bias")}
    assert {name.split(".")[-1] for name in module.state_dict()} == {"log_decay_weight", "log_decay_bias", *maps}
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
        expected = model(ids).logits
    model.save_pretrained(tmp_path)
    del model
    gc.collect()
    loaded = regard.load(tmp_path).model
    with torch.no_grad():
        assert (loaded(ids).logits - expected).abs().max() <= 1e-6
        assert (stepwise(loaded, ids) - expected).abs().max() <= 1e-5
    assert loaded.config.regard_swap == "0: gla; *: window(6)"


def test_gates_learn() -> None:
    model, ids = built()
    regard.swap(model, "gla")
    model(ids, labels=ids).loss.backward()
    for name, parameter in getattr(model, NAME).named_parameters():
        assert parameter.grad is not None and float(parameter.grad.abs().max()) > 0, name


def test_a_swapped_model_is_watched_and_swapped_for_a_while_as_any_other() -> None:
    model, ids = built()
    plain = model(ids).logits.detach()
    with torch.no_grad(), attach(model, mechanism="window(4)") as expected:
        model(ids)
    regard.swap(model, "window(4)")
    with torch.no_grad():
        with attach(model) as trace:
            logits = model(ids).logits
        assert torch.equal(trace.weights(1, 2), expected.weights(1, 2))
        assert torch.equal(model(ids).logits, logits)
        with attach(model, watch=(), mechanism="causal"):
            assert (model(ids).logits - plain).abs().max() <= 1e-5
        assert (model(ids).logits - plain).abs().max() > 1e-3


def test_undone_or_gone_a_swap_leaves_the_registries_as_they_were() -> None:
    from transformers.modeling_utils import AttentionInterface

    def state() -> tuple[set[int], dict[str, Any]]:
        """The modules that are attached, and the registry of attention functions."""
        for _ in range(3):
            gc.collect()
        return set(seam._by_module), dict(AttentionInterface._global_mapping)

    before = state()  # a swapped model of another test may still be alive
    model, ids = built()
    own = {id(module) for module in model.modules()}
    plain = model(ids).logits
    regard.swap(model, "gla")
    model.generate(ids[:1], **SETTINGS)
    assert own <= state()[0] and any("_attend" in repr(f) for f in state()[1].values())
    with pytest.raises(UserError, match="is not copied"):
        copy.deepcopy(model)
    assert regard.swap.released(model) is model and state() == before
    assert torch.equal(model(ids).logits, plain) and not any(NAME in name for name in model.state_dict())
    regard.swap(model, "window(4)")
    model.generate(ids[:1], **SETTINGS)
    assert own <= state()[0]
    del model
    assert state() == before


def test_a_mistake_is_one_sentence() -> None:
    model, _ = built()
    for mechanism, said in (("9: window(3)", "layer 9"), ("nosuch", "no mask, part"), ("linformer", "needs e")):
        with pytest.raises(UserError, match=said):
            regard.swap(model, mechanism)
    regard.swap(model, "window(4)")
    with pytest.raises(UserError, match="was swapped already"):
        regard.swap(model, "window(4)")
    with pytest.raises(UserError, match="was swapped for good"):
        regard.cache(model, "h2o(0.5)")
    with pytest.raises(UserError, match="was not swapped"):
        cache_of(built()[0])


def test_a_memory_and_projections_are_parameters_that_are_saved_and_come_back(tmp_path: Path) -> None:
    model, ids = built()
    regard.swap(model, "0: neural_memory(8); *: own")
    names = {name.removeprefix(f"{NAME}.") for name, _ in model.named_parameters() if name.startswith(NAME)}
    assert {"0.memory.w_1", "0.memory.w_2", "0.gates.rate_bias"} <= names
    model(ids, labels=ids).loss.backward()
    assert all(float(p.grad.abs().max()) > 0 for n, p in model.named_parameters() if "memory.w" in n)
    with torch.no_grad():
        getattr(model, NAME)["0"]["memory"].w_1.mul_(1.5)
        expected = model(ids).logits
        assert (stepwise(model, ids) - expected).abs().max() <= 1e-4
    model.save_pretrained(tmp_path)
    loaded = regard.load(tmp_path).model
    with torch.no_grad():
        assert (loaded(ids).logits - expected).abs().max() <= 1e-5


def test_linformers_projections_mix_tokens_of_an_encoder_and_nothing_else() -> None:
    model, ids = BY_NAME["bert"].build(std=0.12), feed(BY_NAME["bert"], length=14)["input_ids"]
    regard.swap(model, "linformer(4, 14)")
    with torch.no_grad():
        assert model(ids).last_hidden_state.isfinite().all()
        with pytest.raises(UserError, match="up to 14 tokens"):
            model(torch.cat([ids, ids], 1))
    decoder, ids = built()
    regard.swap(decoder, "linformer(4, 14)")
    with pytest.raises(UserError, match="these keys are slots"), torch.no_grad():
        decoder(ids)
    for form, said in (("linformer(4)", "slots and tokens"), ("neural_memory(none)", "whole numbers")):
        with pytest.raises(UserError, match=said):
            regard.swap(built()[0], form)
