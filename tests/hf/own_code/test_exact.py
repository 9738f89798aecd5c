"""Every weight of models that attend in their own code, against what they return as their attentions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import DynamicCache

from regard.hf.own_code.enter import watching
from tests.hf.own_code.models import CASES, Own, feed, seen_in
from tests.hf.test_unchanged import assert_same_bits

MODES = {"no_grad": torch.no_grad, "inference": torch.inference_mode, "grad": torch.enable_grad}


@pytest.mark.parametrize("padding", [None, "left", "right"])
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_weights_equal_the_models_own(case: Own, padding: str | None) -> None:
    model, inputs = case.build(), feed(padding=padding)
    with torch.no_grad():
        plain = model(**inputs)
        output, seen, doubts = seen_in(model, inputs)
        own = model(**inputs, output_attentions=True).attentions
    assert_same_bits(plain, output)
    assert doubts == []
    assert len(seen) == len(own) > 0
    for one, expected in zip(seen, own, strict=True):
        assert one.shape == tuple(expected.shape)
        assert torch.equal(one.weights(), expected), one.name


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_the_mode_of_autograd_does_not_matter(case: Own, mode: str) -> None:
    model, inputs = case.build(), feed(padding="right")
    with MODES[mode]():
        plain = model(**inputs)
        output, seen, doubts = seen_in(model, inputs)
    with torch.no_grad():
        own = model(**inputs, output_attentions=True).attentions
    assert_same_bits(plain, output)
    assert doubts == []
    assert [torch.equal(a.weights(), b) for a, b in zip(seen, own, strict=True)] == [True] * len(own)


def test_fused_attention_in_own_code_is_restated() -> None:
    case = next(c for c in CASES if c.name == "falcon")
    model, inputs = case.build(), feed(padding="left")
    with torch.no_grad():
        own = model(**inputs, output_attentions=True).attentions
        model.config._attn_implementation_internal = "sdpa"
        plain = model(**inputs)
        output, seen, doubts = seen_in(model, inputs)
    assert_same_bits(plain, output)
    assert doubts == [] and len(seen) == len(own)
    assert {one.form for one in seen} <= {"made", "restated"}
    valid = inputs["attention_mask"].bool()[:, None, :, None]
    assert max(((a.weights() - b) * valid).abs().max().item() for a, b in zip(seen, own, strict=True)) <= 1e-5


def test_generation_adds_a_row_at_a_time() -> None:
    case = next(c for c in CASES if c.name == "gptj")
    model, inputs = case.build(), feed(padding="left")
    settings: dict[str, Any] = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
    plain = model.generate(**inputs, **settings)
    shapes: list[tuple[int, ...]] = []
    with watching(model, lambda one: shapes.append(one.shape)):  # type: ignore[union-attr]
        watched = model.generate(**inputs, **settings)
    assert torch.equal(plain, watched)
    assert shapes == [(2, 4, 11, 11)] * 2 + [(2, 4, 1, n) for n in (12, 13, 14) for _ in range(2)]


def test_weights_are_those_before_dropout_and_say_so() -> None:
    case = next(c for c in CASES if c.name == "mpnet")
    model, inputs = case.build(), feed()
    model.train()
    torch.manual_seed(3)
    plain = model(**inputs)
    torch.manual_seed(3)
    output, seen, _ = seen_in(model, inputs)
    assert_same_bits(plain, output)
    assert [one.dropped for one in seen] == pytest.approx([0.1, 0.1])
    assert all(torch.allclose(one.weights().sum(-1), torch.ones(())) for one in seen)


def test_nothing_is_left_on_the_model() -> None:
    model, inputs = CASES[0].build(), feed()
    seen_in(model, inputs)
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())


def test_an_error_inside_attention_leaves_no_mode_behind() -> None:
    model = CASES[0].build()
    with pytest.raises(ValueError, match="stop"):  # noqa: SIM117
        with torch.no_grad():
            seen_in(model, feed() | {"past_key_values": _Stops()})
    assert torch.utils._python_dispatch._get_current_dispatch_mode() is None


class _Stops(DynamicCache):
    """A cache that stops the forward inside the first attention module."""

    def update(self, *_: Any, **__: Any) -> Any:
        raise ValueError("stop")
