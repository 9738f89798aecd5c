"""attach on models that attend in their own code: their traces hold the weights that the models made."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as tf
from torch import Tensor

from regard.hf.attach import attach
from regard.hf.errors import Unsupported
from regard.seeing.trace import Layer, Trace
from tests.hf.models import small
from tests.hf.own_code.models import CASES, LED_MODEL, LONGFORMER, Own, feed, own, seen_in
from tests.hf.test_unchanged import assert_same_bits

BY_NAME = {case.name: case for case in CASES}


def traced(trace: Trace, layer: Layer) -> Tensor:
    batch = trace.axes[layer.query_axis].axis.positions.shape[0]
    return torch.stack([torch.stack([trace.weights(layer, h, batch=b) for h in layer.heads]) for b in range(batch)])


@pytest.mark.parametrize("padding", [None, "left"])
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_traces_hold_the_models_own_weights(case: Own, padding: str | None) -> None:
    model, inputs = case.build(), feed(padding=padding)
    with torch.no_grad():
        plain = model(**inputs)
        with attach(model) as trace:
            watched = model(**inputs)
        expected = model(**inputs, output_attentions=True).attentions
    assert_same_bits(plain, watched)
    assert trace.made["not_reached"] == [] and trace.made["problems"] == []
    assert trace.made["watched_by"] == ["own code (made)"]
    assert len(trace.layers) == len(expected)
    for layer, weights in zip(trace.layers, expected, strict=True):
        axis = trace.axes[layer.query_axis].axis
        assert torch.equal(traced(trace, layer), weights * axis.valid[:, None, :, None]), layer.title
    first = trace.axes[trace.layers[0].query_axis].axis
    assert torch.equal(first.ids, inputs["input_ids"])
    if padding:
        assert torch.equal(first.valid, inputs["attention_mask"].bool())


def test_a_longer_block_than_the_text_is_left_out() -> None:
    model, inputs = LONGFORMER.build(), feed(30, "right")
    with torch.no_grad(), attach(model) as trace:
        model(**inputs)
    assert {layer.title for layer in trace.layers} == {"encoder 0", "encoder 1"}
    layer = trace.layers[0]
    assert trace.axes[layer.query_axis].axis.length == 30
    valid = inputs["attention_mask"].bool()
    assert torch.allclose(traced(trace, layer).sum(-1), valid[:, None].float().expand(-1, 4, -1), atol=1e-5)
    assert trace.made["watched_by"] == ["own code (band)"]


def test_an_encoder_decoder_has_its_three_kinds() -> None:
    model, inputs = LED_MODEL.build(), feed(16)
    with torch.no_grad(), attach(model) as trace:
        model(**inputs, decoder_input_ids=inputs["input_ids"][:, :7])
    kinds = {(layer.stack, layer.kind): layer for layer in trace.layers}
    assert set(kinds) == {("encoder", "self"), ("decoder", "self"), ("decoder", "cross")}
    cross = kinds[("decoder", "cross")]
    assert (cross.query_axis, cross.key_axis) == ("decoder", "encoder")


def test_generation_is_one_sequence() -> None:
    model, inputs = BY_NAME["gptj"].build(), feed(padding="left")
    settings: dict[str, Any] = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
    plain = model.generate(**inputs, **settings)
    with attach(model) as trace:
        watched = model.generate(**inputs, **settings)
    assert torch.equal(plain, watched)
    assert trace.earlier == []
    mask = torch.nn.functional.pad(inputs["attention_mask"], (0, 4), value=1)
    with torch.no_grad():
        expected = model(plain[:, :-1], attention_mask=mask, output_attentions=True).attentions
    for layer, weights in zip(trace.layers, expected, strict=True):
        assert trace.axes[layer.query_axis].axis.length == 15
        assert (traced(trace, layer) - weights * mask[:, None, :, None]).abs().max() <= 1e-5


@pytest.mark.parametrize("name", ["gptj", "bloom", "falcon"])
def test_beam_search_is_refused(name: str) -> None:
    model, inputs = BY_NAME[name].build(), feed()
    with pytest.raises(Unsupported, match="beam search"), attach(model):
        model.generate(**inputs, num_beams=4, max_new_tokens=8, do_sample=False, pad_token_id=0)


def test_one_sequence_after_another() -> None:
    model = BY_NAME["mpnet"].build()
    with torch.no_grad(), attach(model) as trace:
        model(**feed(11))
        model(**feed(9))
    assert len(trace.earlier) == 1
    assert trace.axes[trace.layers[0].query_axis].axis.length == 9


def test_layers_and_heads_are_chosen() -> None:
    model, inputs = BY_NAME["bloom"].build(), feed()
    with torch.no_grad(), attach(model, layers=[1], heads=[2]) as trace:
        model(**inputs)
        expected = model(**inputs, output_attentions=True).attentions
    assert [(layer.index, layer.heads) for layer in trace.layers] == [(1, [2])]
    assert torch.equal(traced(trace, trace.layers[0])[:, 0], expected[1][:, 2])


def test_own_code_is_not_swapped() -> None:
    model = BY_NAME["bloom"].build()
    for settings in ({"mechanism": "causal"}, {"backend": "reference"}):
        with pytest.raises(Unsupported, match="can be watched but not computed another way"), attach(model, **settings):
            pass


def test_an_attention_without_weights_is_named_with_its_reason() -> None:
    model = own("yoso", "YosoModel", "YosoConfig", **small()).build()
    said = "none of its attention could be seen: layer encoder.layer.0.attention.self is not seen: it estimates weights"
    with pytest.raises(Unsupported, match=said), torch.no_grad(), attach(model):
        model(**feed())


@pytest.mark.parametrize("landmarks,seen", [(12, True), (4, False)])
def test_a_nystromformer_is_seen_where_it_takes_one_softmax(landmarks: int, seen: bool) -> None:
    settings = {"num_landmarks": landmarks, "segment_means_seq_len": 12, "conv_kernel_size": 3}
    model = own("nystromformer", "NystromformerModel", "NystromformerConfig", **settings, **small()).build()
    with torch.no_grad():
        _, found, doubts = seen_in(model, feed(12))
    assert (len(found), len(doubts)) == ((2, 0) if seen else (0, 2))


def test_a_pooling_head_beside_the_interface() -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = tf.SiglipVisionModel(tf.SiglipVisionConfig(**sizes, image_size=16, patch_size=8)).eval()
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        plain = model(images)
        with attach(model) as trace:
            watched = model(images)
    assert_same_bits(plain, watched)
    assert trace.made["not_reached"] == []
    assert len(trace.layers) == 3
    pooling = next(layer for layer in trace.layers if "head" in layer.name)
    assert traced(trace, pooling).shape == (2, 4, 1, 4)
    assert torch.allclose(traced(trace, pooling).sum(-1), torch.ones(2, 4, 1))
