"""What real use brings: caches, packing, half precision, compilation, several forwards; and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as tf

from regard.hf.attach import attach
from regard.hf.calls import Unsupported
from regard.seeing.statistics import Entropy, Maximum, Overview, Received, standard
from tests.hf.models import BY_NAME, CASES, Case, feed, small
from tests.hf.test_exact import assert_same_weights, eager_attentions, seen_weights
from tests.hf.test_unchanged import assert_same_bits

GENERATING = [case for case in CASES if "generates" in case.traits]
PACKING = [case for case in CASES if "packs" in case.traits]


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("case", GENERATING, ids=lambda c: c.name)
def test_generated_rows_equal_one_forward_over_all_tokens(case: Case, cache: str) -> None:
    model, inputs = case.build(), feed(case)
    target = inputs.pop("decoder_input_ids", None)
    settings: dict[str, Any] = {"max_new_tokens": 9, "min_new_tokens": 9, "do_sample": False, "pad_token_id": 0}
    if cache == "static":
        settings |= {"cache_implementation": "static", "disable_compile": True}
    with attach(model) as steps:
        tokens = model.generate(**inputs, **settings)
    whole = inputs | ({"input_ids": tokens[:, :-1]} if target is None else {"decoder_input_ids": tokens[:, :-1]})
    with torch.no_grad(), attach(model) as once:
        model(**whole)
    a, b = seen_weights(steps), seen_weights(once)
    assert a.keys() == b.keys()
    for name in a:
        for x, y in zip(a[name], b[name], strict=True):
            assert x.shape == y.shape
            assert (x - y).abs().max() <= 1e-5
    for label in ("received", "entropy", "distances"):
        for x, y in zip(steps[label], once[label], strict=True):
            assert all(torch.allclose(x[key].double(), y[key].double(), atol=2e-5) for key in x)


@pytest.mark.parametrize("case", PACKING, ids=lambda c: c.name)
def test_packed_sequences_equal_each_alone(case: Case) -> None:
    model = case.build()
    ids = feed(case, batch=1, length=12)["input_ids"]
    positions = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 6]])
    with torch.no_grad(), attach(model) as packed:
        model(input_ids=ids, position_ids=positions, use_cache=False)
    for first, last in ((0, 5), (5, 12)):
        with torch.no_grad(), attach(model) as alone:
            model(input_ids=ids[:, first:last])
        for name, layers in seen_weights(alone).items():
            for number, weights in enumerate(layers):
                whole = seen_weights(packed)[name][number]
                assert (whole[..., first:last, first:last] - weights).abs().max() <= 1e-5
                assert whole[..., first:last, :].sum() == pytest.approx(float(weights.sum()), rel=1e-5)
        span = slice(first, last)
        for a, b in zip(packed["sink"], alone["sink"], strict=True):
            assert torch.allclose(a["rows"][..., span], b["rows"], atol=1e-5)
        assert torch.equal(packed.axes["decoder"].axis.positions[:, span], alone.axes["decoder"].axis.positions)


@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral", "gemma3", "gpt_oss"])
def test_chunked_prefill_with_a_cache_equals_one_forward(name: str) -> None:
    model, inputs = BY_NAME[name].build(), feed(BY_NAME[name])
    ids = inputs["input_ids"]
    with torch.no_grad(), attach(model) as once:
        model(**inputs)
    with torch.no_grad(), attach(model) as chunks:
        cache = model(input_ids=ids[:, :6], use_cache=True).past_key_values
        model(input_ids=ids[:, 6:], past_key_values=cache)
    for layers, others in zip(seen_weights(once).values(), seen_weights(chunks).values(), strict=True):
        assert all((a - b).abs().max() <= 1e-5 for a, b in zip(layers, others, strict=True))


def test_a_mask_of_the_users_own() -> None:
    model, ids = BY_NAME["llama"].build(), feed(BY_NAME["llama"])["input_ids"]
    torch.manual_seed(0)
    mask = (torch.rand(2, 1, 11, 11) > 0.5).tril() | torch.eye(11, dtype=torch.bool)
    inputs = {"input_ids": ids, "attention_mask": mask}
    with torch.no_grad():
        plain = model(**inputs)
        with attach(model) as trace:
            watched = model(**inputs)
    assert_same_bits(plain, watched)
    cells = seen_weights(trace)["decoder"]
    assert all(bool((w.masked_fill(mask, 0.0) == 0).all()) for w in cells)
    assert all(torch.allclose(w.sum(-1), torch.ones(2, 4, 11), atol=1e-5) for w in cells)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["llama", "bert", "t5"])
def test_half_precision(name: str, dtype: torch.dtype) -> None:
    model, inputs = BY_NAME[name].build().to(dtype), feed(BY_NAME[name])
    with torch.no_grad():
        plain = model(**inputs)
        with attach(model) as trace:
            watched = model(**inputs)
    assert_same_bits(plain, watched)
    # eager rounds its scores to 8 (bfloat16) or 11 bits, so with scores of 10 its own weights are off by some percent
    assert_same_weights(trace, eager_attentions(model, inputs), bound=0.05)


def test_autocast() -> None:
    model, inputs = BY_NAME["llama"].build(), feed(BY_NAME["llama"])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        plain = model(**inputs)
        with attach(model):
            watched = model(**inputs)
    assert_same_bits(plain, watched)


def test_inference_mode_then_ordinary_mode() -> None:
    model, ids = BY_NAME["gpt2"].build(), feed(BY_NAME["gpt2"])["input_ids"]
    with attach(model) as trace:
        with torch.inference_mode():
            cache = model(input_ids=ids[:, :6], use_cache=True).past_key_values
        with torch.no_grad():
            model(input_ids=ids[:, 6:], past_key_values=cache)
    assert trace.axes["decoder"].axis.length == 11


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_compiled_model(name: str) -> None:
    model, inputs = BY_NAME[name].build(), feed(BY_NAME[name])
    compiled = torch.compile(model, backend="eager")
    with torch.no_grad():
        compiled(**inputs)
        with attach(compiled, watch=()):
            unwatched = compiled(**inputs)
        with attach(compiled) as trace:
            watched = compiled(**inputs)
        assert_same_weights(trace, eager_attentions(model, inputs))
    assert_same_bits(unwatched, watched)


def test_a_model_compiled_without_graph_breaks_is_refused() -> None:
    compiled = torch.compile(BY_NAME["gpt2"].build(), backend="eager", fullgraph=True)
    with pytest.raises(Unsupported, match="fullgraph"), attach(compiled):
        pass


def test_some_layers_and_heads() -> None:
    model, inputs = BY_NAME["llama"].build(), feed(BY_NAME["llama"])
    with torch.no_grad():
        plain = model(**inputs)
        with attach(model) as everything:
            model(**inputs)
        with attach(model, layers=[1], heads=[3, 0]) as trace:
            watched = model(**inputs)
    assert_same_bits(plain, watched)
    (layer,) = trace.layers
    assert (layer.index, layer.heads) == (1, [3, 0])
    for label in ("entropy", "received", "overview"):
        for key, value in layer.results[label].items():
            whole = everything.layers[1].results[label][key]
            picked = whole[:, [3, 0]] if whole.ndim > 1 and whole.shape[1] == 4 else whole
            assert torch.allclose(value.double(), picked.double(), atol=1e-6), (label, key)


def test_two_forwards_are_two_sequences() -> None:
    model, first, second = BY_NAME["llama"].build(), feed(BY_NAME["llama"]), feed(BY_NAME["llama"], length=7, seed=2)
    with torch.no_grad(), attach(model) as trace:
        model(**first)
        model(**second)
    (before,) = trace.earlier
    assert_same_weights(before, eager_attentions(model, first))
    assert_same_weights(trace, eager_attentions(model, second))


def test_a_trace_can_be_read_inside_the_block() -> None:
    model, inputs = BY_NAME["llama"].build(), feed(BY_NAME["llama"])
    with torch.no_grad(), attach(model) as trace:
        model(**inputs)
        assert len(trace.layers) == 2
        assert trace["entropy"][0]["rows"].shape == (2, 4, 11)


@pytest.mark.parametrize("name", ["llama", "t5", "bart", "gpt_oss", "mistral"])
def test_kept_queries_and_keys_give_any_rectangle(name: str) -> None:
    case = BY_NAME[name]
    model, inputs = case.build(), feed(case)
    with torch.no_grad(), attach(model, [Overview(resolution=2)], keep="qk") as trace:
        model(**inputs)
    with torch.no_grad(), attach(model, [Overview(resolution=64)]) as whole:
        model(**inputs)
    for coarse, fine in zip(trace.layers, whole.layers, strict=True):
        cells = trace.weights(coarse, 2, slice(1, 6), slice(2, 5), batch=1)
        assert torch.allclose(cells, whole.weights(fine, 2, slice(1, 6), slice(2, 5), batch=1), atol=1e-6)


def test_kept_queries_and_keys_of_a_generation() -> None:
    model, inputs = BY_NAME["llama"].build(), feed(BY_NAME["llama"])
    settings: dict[str, Any] = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
    with attach(model, [Overview(resolution=2)], keep="qk") as kept:
        model.generate(**inputs, **settings)
    with attach(model) as whole:
        model.generate(**inputs, **settings)
    for coarse, fine in zip(kept.layers, whole.layers, strict=True):
        assert torch.allclose(kept.weights(coarse, 1), whole.weights(fine, 1), atol=1e-6)


@pytest.mark.parametrize("name", ["gpt2", "llama", "bert", "t5", "bart", "gemma2", "vit", "whisper"])
def test_norm_weighted_statistics(name: str) -> None:
    """a_ij ‖v_j W_O‖ against the vectors themselves, for the layers' own projections."""
    case = BY_NAME[name]
    model, inputs = case.build(), feed(case)
    statistics = [Received(), Received(of="norm"), Overview(of="norm"), Overview()]
    seen: dict[str, torch.Tensor] = {}
    from regard.hf import watcher as module

    original = module.value_norms

    def recording(value: torch.Tensor, projection: torch.Tensor, num_heads: int) -> torch.Tensor:
        found = original(value, projection, num_heads)
        repeated = value.repeat_interleave(num_heads // value.shape[1], 1).float()
        split = projection.detach().float().reshape(num_heads, value.shape[3], -1)
        dense = torch.einsum("bhtd,hdm->bhtm", repeated, split).norm(dim=-1)
        assert torch.allclose(found, dense, rtol=1e-4, atol=1e-6)
        seen[str(len(seen))] = found
        return found

    module.value_norms = recording
    try:
        with torch.no_grad(), attach(model, statistics) as trace:
            model(**inputs)
    finally:
        module.value_norms = original
    for norms, layer in zip(seen.values(), trace.layers, strict=True):
        plain, weighted = layer.results["overview"]["max"], layer.results["overview:norm"]["max"]
        assert torch.allclose(weighted, plain * norms[:, :, None], rtol=1e-4, atol=1e-6)
        expected = layer.results["received"]["keys"] * norms
        assert torch.allclose(layer.results["received:norm"]["keys"], expected, rtol=1e-4, atol=1e-5)


def test_an_entropy_of_norms_is_undefined_and_says_so() -> None:
    model, inputs = BY_NAME["llama"].build(), feed(BY_NAME["llama"])
    with torch.no_grad(), attach(model, [Entropy(of="norm"), Maximum()]) as trace:
        model(**inputs)
    assert "not for norm-weighted" in trace.layers[0].undefined["entropy:norm"]
    assert "max" in trace.layers[0].results


# ---- what is refused, in one sentence --------------------------------------------------------------------------------


def test_models_without_attention_are_refused_by_name() -> None:
    fnet = tf.FNetModel(tf.FNetConfig(vocab_size=99, hidden_size=32, num_hidden_layers=1, intermediate_size=32))
    with pytest.raises(Unsupported, match=r"FNetModel \(fnet\) has no attention"), attach(fnet):
        pass


def test_something_that_is_no_model_is_refused() -> None:
    with pytest.raises(Unsupported, match="got Linear"), attach(torch.nn.Linear(2, 2)):
        pass


def test_attaching_twice_is_refused() -> None:
    model = BY_NAME["gpt2"].build()
    with attach(model), pytest.raises(Unsupported, match="already attached"), attach(model):
        pass


def test_beam_search_is_refused() -> None:
    model, inputs = BY_NAME["llama"].build(), feed(BY_NAME["llama"])
    with pytest.raises(Unsupported, match="beam search"), attach(model):
        model.generate(**inputs, num_beams=4, max_new_tokens=8, do_sample=False, pad_token_id=0)


def test_a_cache_that_was_cut_is_refused() -> None:
    model, ids = BY_NAME["llama"].build(), feed(BY_NAME["llama"])["input_ids"]
    with torch.no_grad(), pytest.raises(Unsupported, match="crop"), attach(model):
        cache = model(input_ids=ids, use_cache=True).past_key_values
        cache.crop(-3)
        model(input_ids=ids[:, :2], past_key_values=cache)


def test_attaching_in_the_middle_of_a_sequence_is_refused() -> None:
    model, ids = BY_NAME["llama"].build(), feed(BY_NAME["llama"])["input_ids"]
    with torch.no_grad():
        cache = model(input_ids=ids, use_cache=True).past_key_values
        with pytest.raises(Unsupported, match="continues at token 11, but 0 were seen"), attach(model):
            model(input_ids=ids[:, :2], past_key_values=cache)


def test_an_unknown_keyword_is_refused() -> None:
    model, inputs = BY_NAME["llama"].build(), feed(BY_NAME["llama"])
    with torch.no_grad(), pytest.raises(Unsupported, match="'head_mask'"), attach(model):
        model(**inputs, head_mask=torch.ones(4))


def test_a_head_out_of_range_is_refused() -> None:
    model, inputs = BY_NAME["llama"].build(), feed(BY_NAME["llama"])
    with torch.no_grad(), pytest.raises(Unsupported, match="heads 0 to 3; head 4"), attach(model, heads=[4]):
        model(**inputs)


def test_nan_weights_and_empty_rows_are_noted() -> None:
    model, inputs = BY_NAME["gpt2"].build(), feed(BY_NAME["gpt2"])
    with torch.no_grad():
        model.transformer.h[1].attn.c_attn.weight[0, 0] = float("nan")
        with attach(model) as trace:
            model(**inputs)
    assert any("h.1.attn has NaN" in problem for problem in trace.made["problems"])
    model = BY_NAME["llama"].build()
    mask = torch.ones(2, 1, 11, 11, dtype=torch.bool).tril()
    mask[:, :, 4] = False
    with torch.no_grad(), attach(model, standard()) as trace:
        model(**inputs | {"attention_mask": mask})
    assert any("token 4" in problem and "no key" in problem for problem in trace.made["problems"])


def test_two_models_that_share_a_config_are_watched_apart() -> None:
    config = tf.LlamaConfig(**small())
    one, two = tf.LlamaModel(config).eval(), tf.LlamaModel(config).eval()
    first, second = feed(BY_NAME["llama"], padding="left"), feed(BY_NAME["llama"], length=7, seed=2)
    with torch.no_grad(), attach(one) as trace, attach(two) as other:
        one(**first)
        two(**second)
    assert_same_weights(trace, eager_attentions(one, first))
    assert_same_weights(other, eager_attentions(two, second))


def test_an_unknown_version_of_transformers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: "6.0.1")
    with (
        pytest.raises(Unsupported, match=r"transformers 6.0.1 is installed.* 5.17 to 5.23"),
        attach(BY_NAME["gpt2"].build()),
    ):
        pass


def test_generated_tokens_are_marked_off_from_the_prompt() -> None:
    case = BY_NAME["llama"]
    model, inputs = case.build(), feed(case)
    with attach(model) as trace:
        model.generate(inputs["input_ids"], max_new_tokens=3, min_new_tokens=3, do_sample=False)
    (tokens,) = trace.axes.values()
    assert tokens.prompt == inputs["input_ids"].shape[1]
    with torch.no_grad(), attach(model) as alone:
        model(inputs["input_ids"])
    assert [tokens.prompt for tokens in alone.axes.values()] == [None]
