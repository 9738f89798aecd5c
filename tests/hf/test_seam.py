"""The seam by itself: any handler, what it is told, what it may leave to the model; and nothing left behind."""

from __future__ import annotations

import copy
import sys
import threading
from typing import Any

import pytest
import torch
from torch import Tensor

from regard.hf.attach import attach
from regard.hf.errors import Unsupported
from regard.hf.seam import AttentionCall, Handler, handling
from tests.hf.models import BY_NAME, feed
from tests.hf.test_unchanged import assert_same_bits, state_of


class Counting(Handler):
    """Leaves every output to the model."""

    def __init__(self) -> None:
        self.calls: list[AttentionCall] = []
        self.began: list[bool] = []

    def before_forward(self, model: Any, is_outermost: bool, args: Any, kwargs: Any) -> None:
        self.began.append(is_outermost)

    def attend(self, call: AttentionCall) -> Tensor | None:
        self.calls.append(call)
        return None


class Uniform(Handler):
    """Every query takes the mean of all values: an output that is known in closed form."""

    masks = "none"

    def attend(self, call: AttentionCall) -> Tensor | None:
        assert call.mask is None
        mean = call.value.mean(2).repeat_interleave(call.query.shape[1] // call.value.shape[1], 1)
        return mean[:, None].expand(-1, call.query.shape[2], -1, -1)


def test_a_handler_is_told_of_every_call_and_may_leave_it_to_the_model() -> None:
    model, inputs = BY_NAME["llama"].build(), feed(BY_NAME["llama"], padding="left")
    before, handler = state_of(model), Counting()
    with torch.no_grad():
        plain = model(**inputs)
        with handling(model, handler):
            same = model(**inputs)
    assert_same_bits(plain, same)
    assert [call.module.layer_idx for call in handler.calls] == [0, 1]
    assert all(isinstance(call.mask, Tensor) and call.mask.dtype == torch.bool for call in handler.calls)
    assert handler.began == [True, False]
    assert state_of(model) == before


def test_a_handler_may_make_the_output() -> None:
    model, inputs = BY_NAME["llama"].build(), feed(BY_NAME["llama"], padding="left")
    attention = model.model.layers[0].self_attn
    seen: list[Tensor] = []
    remove = attention.register_forward_hook(lambda module, args, output: seen.append(output[0])).remove
    values: list[Tensor] = []
    attention.v_proj.register_forward_hook(lambda module, args, output: values.append(output))
    with torch.no_grad(), handling(model, Uniform()):
        model(**inputs)
    remove()
    mean = values[0].mean(1, keepdim=True).unflatten(-1, (2, 8)).repeat_interleave(2, 2).flatten(2)
    assert torch.allclose(seen[0], attention.o_proj(mean).expand_as(seen[0]), atol=1e-5)


def test_a_handler_with_the_wrong_layout_is_caught() -> None:
    class Wrong(Handler):
        def attend(self, call: AttentionCall) -> Tensor | None:
            return torch.zeros_like(call.query)

    model, inputs = BY_NAME["llama"].build(), feed(BY_NAME["llama"])
    with torch.no_grad(), handling(model, Wrong()), pytest.raises(AssertionError):
        model(**inputs)


def test_other_models_pass_through() -> None:
    model, other, inputs = BY_NAME["llama"].build(), BY_NAME["llama"].build(1), feed(BY_NAME["llama"])
    handler = Counting()
    with torch.no_grad():
        plain = other(**inputs)
        with handling(model, handler):
            assert_same_bits(plain, other(**inputs))
    assert handler.calls == []


def test_the_implementation_may_be_switched_inside_the_block() -> None:
    model, inputs = BY_NAME["llama"].build(), feed(BY_NAME["llama"], padding="left")
    with torch.no_grad():
        model.set_attn_implementation("eager")
        plain = model(**inputs)
        model.set_attn_implementation("sdpa")
        with attach(model) as trace:
            model.set_attn_implementation("eager")
            assert_same_bits(plain, model(**inputs))
        assert model.config._attn_implementation == "eager"
    assert len(trace.layers) == 2


def test_two_threads_at_once_are_refused_in_one_sentence() -> None:
    model, inputs = BY_NAME["llama"].build(), feed(BY_NAME["llama"])
    inside, go_on = threading.Event(), threading.Event()

    def waits(module: Any, args: Any, output: Any) -> None:
        inside.set()
        assert go_on.wait(30)

    def run() -> None:
        with torch.no_grad():
            model(**inputs)

    with attach(model) as trace:
        remove = model.model.layers[0].register_forward_hook(waits).remove
        thread = threading.Thread(target=run)
        thread.start()
        assert inside.wait(30)
        with torch.no_grad(), pytest.raises(Unsupported, match="two threads run LlamaForCausalLM at once"):
            model(**inputs)
        go_on.set()
        thread.join()
        remove()
    assert len(trace.layers) == 2 and trace.earlier == []
    with attach(model) as trace:
        for _ in range(3):
            thread = threading.Thread(target=run)
            thread.start()
            thread.join()
    assert len(trace.earlier) == 2


def test_an_edited_mask_is_read_as_it_is_not_as_it_was_asked_for() -> None:
    model, inputs = BY_NAME["llama"].build(), feed(BY_NAME["llama"], padding="left")

    def edits(module: Any, args: Any, kwargs: Any) -> Any:
        kwargs["attention_mask"][..., 5] = False
        return None

    model.model.layers[1].register_forward_pre_hook(edits, with_kwargs=True)
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode, attach(model) as trace:
            model(**inputs)
        first, second = (trace.weights(layer, 0, batch=1) for layer in trace.layers)
        assert float(first[6:, 5].min()) > 0
        assert float(second[:, 5].abs().max()) == 0


def test_some_layers_and_heads_are_swapped_and_others_watched() -> None:
    model, inputs = BY_NAME["llama"].build(), feed(BY_NAME["llama"], padding="left")
    settings: dict[str, Any] = {"mechanism": "window(3)", "swap_layers": [0], "swap_heads": [2, 1]}
    with torch.no_grad():
        with attach(model) as own:
            model(**inputs)
        with attach(model, mechanism="window(3)") as everywhere:
            model(**inputs)
        with attach(model, **settings) as trace:
            model(**inputs)
        with attach(model, **settings, heads=[3, 1]) as some:
            model(**inputs)
    first = trace.layers[0]
    assert first.heads == [0, 1, 2, 3]
    for head in range(4):
        of = everywhere if head in (1, 2) else own
        expected = of.weights(0, head, batch=1)
        assert torch.allclose(trace.weights(0, head, batch=1), expected, atol=1e-6)
        assert torch.allclose(first.summaries["entropy"][1, head], of.layers[0].summaries["entropy"][1, head])
    assert some.layers[0].heads == [3, 1]
    assert torch.allclose(some.weights(0, 1), everywhere.weights(0, 1), atol=1e-6)
    assert torch.allclose(some.weights(0, 3), own.weights(0, 3), atol=1e-6)
    assert bool((trace.weights(1, 0, batch=1)[10] > 0).all())  # layer 1 is not swapped


def test_layers_that_are_not_swapped_keep_their_own_function() -> None:
    model, inputs = BY_NAME["llama"].build(), feed(BY_NAME["llama"], padding="left")
    with torch.no_grad():
        plain = model(**inputs)
        with attach(model, mechanism="window(99)", swap_layers=[]):
            assert_same_bits(plain, model(**inputs))
        with attach(model, mechanism="window(99)", swap_heads=[1]) as trace:
            near = model(**inputs)
    assert trace.made["output"] != "the model's own attention"
    valid = inputs["attention_mask"].bool()
    assert torch.allclose(plain.logits[valid], near.logits[valid], atol=1e-3)
    with pytest.raises(Unsupported, match="give mechanism="), attach(model, swap_heads=[1]):
        pass
    with (
        pytest.raises(Unsupported, match="one mechanism a layer"),
        attach(model, keep="qk", **{"mechanism": "causal", "swap_heads": [1]}),
    ):
        pass
    asked = attach(model, mechanism="causal", swap_heads=[9])
    with torch.no_grad(), pytest.raises(Unsupported, match="head 9 was to be"), asked:
        model(**inputs)


def test_a_deep_copy_runs_unwatched_inside_the_block_and_after_it() -> None:
    model, inputs = BY_NAME["llama"].build(), feed(BY_NAME["llama"], padding="left")
    with torch.no_grad():
        plain = model(**inputs)
        with attach(model) as trace:
            other = copy.deepcopy(model)
            assert_same_bits(plain, other(**inputs))
        assert trace.layers == []
        assert_same_bits(plain, other(**inputs))
        with attach(other) as trace:
            assert_same_bits(plain, other(**inputs))
    assert len(trace.layers) == 2


class Wrapper(torch.nn.Module):
    """Holds a model as adapters do."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.base_model = torch.nn.ModuleDict({"model": model})

    def forward(self, **inputs: Any) -> Any:
        return self.base_model["model"](**inputs)


def test_a_wrapped_model_is_watched() -> None:
    model, inputs = BY_NAME["llama"].build(), feed(BY_NAME["llama"], padding="left")
    wrapper = Wrapper(model)
    with torch.no_grad(), attach(wrapper) as trace:
        wrapper(**inputs)
    assert trace.made["model_class"] == "LlamaForCausalLM" and len(trace.layers) == 2


def calls_in(run: Any) -> int:
    """How many functions, in Python or C, Python calls while this runs."""
    count = 0

    def note(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(None)
    return count


def test_being_attached_costs_a_forward_little() -> None:
    model, inputs = BY_NAME["llama"].build(), feed(BY_NAME["llama"])
    with torch.no_grad():
        model(**inputs)
        plain = calls_in(lambda: model(**inputs))
        with attach(model, watch=()):
            model(**inputs)
            attached = calls_in(lambda: model(**inputs))
    assert attached - plain <= 300  # 220 for two layers, one mask and two models inside one another


def test_without_a_mask_eager_attention_sees_all_and_sdpa_is_causal_where_the_module_does_not_say() -> None:
    from transformers import SplinterConfig, SplinterModel

    sizes = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 16}
    model = SplinterModel(SplinterConfig(vocab_size=64, **sizes)).eval()
    assert model.config._attn_implementation == "eager"  # which splinter's class has no other
    assert not hasattr(model.encoder.layer[0].attention.self, "is_causal")
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    with torch.no_grad(), attach(model) as trace:
        shown = model(ids, output_attentions=True).attentions[0]
    ours = torch.stack([trace.weights(0, head) for head in range(2)])
    assert float(shown[0, 0, 0, 4]) > 0.01
    assert torch.allclose(ours, shown[0], atol=1e-6)
