"""What of a model can be seen is told without an input, and it is true of a forward."""

from __future__ import annotations

import pytest
import torch
import transformers as tf

from regard.hf.check import parts_of, said
from regard.hf.own_code.modules import calls_interface
from tests.hf.models import BY_NAME, small
from tests.hf.own_code.models import CASES, LONGFORMER, feed, own, seen_in


def test_a_model_on_the_interface() -> None:
    model = BY_NAME["bert"].build()
    assert {part.how for part in parts_of(model)} == {"interface"}
    assert said(model) == [
        "2 BertSelfAttention modules: seen through transformers' attention interface, without the n × n matrix."
    ]


@pytest.mark.parametrize("case", [*CASES, LONGFORMER], ids=lambda c: c.name)
def test_modules_said_to_be_seen_in_own_code_are_seen(case: object) -> None:
    model = case.build()  # type: ignore[attr-defined]
    with torch.no_grad():
        _, seen, _ = seen_in(model, feed())
    parts = parts_of(model)
    assert {part.how for part in parts} <= {"own code", "placed"}
    assert {part.name for part in parts} == {one.name for one in seen}


def test_what_has_no_weights_is_refused_with_a_reason() -> None:
    model = own("yoso", "YosoModel", "YosoConfig", **small()).build()
    assert said(model) == [
        "2 YosoSelfAttention modules: refused, because it estimates weights by hashing (Bernoulli sampling), without a "
        "softmax over keys."
    ]
    with torch.no_grad():
        _, seen, _ = seen_in(model, feed())
    assert seen == []


def test_a_model_without_attention_says_so() -> None:
    assert said(tf.MobileNetV2Model(tf.MobileNetV2Config(depth_multiplier=0.35))) == [
        "MobileNetV2Model has no attention modules."
    ]


def test_a_model_with_both(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    model = tf.SiglipVisionModel(tf.SiglipVisionConfig(**sizes, image_size=16, patch_size=8)).eval()
    parts = {part.name: part.how for part in parts_of(model)}
    assert sorted(parts.values()) == ["interface", "own code"]
    assert calls_interface(type(model.get_submodule(next(n for n, how in parts.items() if how == "interface"))))
    with torch.no_grad():
        _, seen, _ = seen_in(model, {"pixel_values": torch.randn(2, 3, 16, 16)})
    assert [one.name for one in seen] == [name for name, how in parts.items() if how == "own code"]
    assert seen[0].shape == (2, 4, 1, 4)
