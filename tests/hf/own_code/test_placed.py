"""Local and hashed attention at true positions: the placed weights, times the values, are what the module returned."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from regard.hf.own_code.enter import watching
from tests.hf.own_code.models import BIG_BIRD, LED_MODEL, LONGFORMER, Own, feed, reformer, seen_in
from tests.hf.test_unchanged import assert_same_bits


def ran(model: Any, inputs: dict[str, Any], kind: str) -> tuple[list[Any], dict[str, tuple[Tensor, Tensor]]]:
    """(what was seen, by name of each module of this class: its input and its output), outputs unchanged."""
    noted: dict[str, tuple[Tensor, Tensor]] = {}

    def note(name: str, args: Any, kwargs: Any, out: Any) -> None:
        given = args[0] if args else kwargs["hidden_states"]
        noted[name] = (given, out[0] if isinstance(out, tuple) else out.hidden_states)

    handles = [
        m.register_forward_hook(lambda _, a, k, o, name=name: note(name, a, k, o), with_kwargs=True)
        for name, m in model.named_modules()
        if type(m).__name__ == kind
    ]
    with torch.no_grad():
        plain = model(**inputs)
        output, seen, doubts = seen_in(model, inputs)
    for handle in handles:
        handle.remove()
    assert_same_bits(plain, output)
    assert doubts == []
    return [one for one in seen if one.name in noted], noted


def by_head(projected: Tensor, heads: int) -> Tensor:
    return projected.unflatten(-1, (heads, -1)).transpose(1, 2)


@torch.no_grad()
def mixed(weights: Tensor, values: Tensor) -> Tensor:
    return (weights @ values).transpose(1, 2).flatten(2)


def assert_close(a: Tensor, b: Tensor, rows: Tensor | None = None) -> None:
    error = (a - b).abs().amax(-1)
    assert float((error if rows is None else error * rows).max()) <= 1e-5 * (1 + float(b.abs().max()))


@pytest.mark.parametrize("padding", [None, "right"])
@pytest.mark.parametrize("has_globals", [False, True], ids=["local", "global"])
@pytest.mark.parametrize("case", [LONGFORMER, LED_MODEL], ids=lambda c: c.name)
def test_a_band_with_global_tokens(case: Own, has_globals: bool, padding: str | None) -> None:
    model, inputs = case.build(), feed(30, padding)
    flags = torch.zeros_like(inputs["input_ids"])
    if has_globals:
        flags[0, 0] = flags[1, 0] = flags[1, 12] = flags[1, 13] = 1
        inputs["global_attention_mask"] = flags
    if case.is_seq2seq:
        inputs["decoder_input_ids"] = inputs["input_ids"][:, :7]
    kind = "LEDEncoderSelfAttention" if case.is_seq2seq else "LongformerSelfAttention"
    seen, noted = ran(model, inputs, kind)
    assert [one.form for one in seen] == ["band", "band"]
    for one in seen:
        given, out = noted[one.name]
        weights, module = one.weights(), one.module
        length = weights.shape[-1]
        assert length >= 30 and given.shape[1] == length
        distance = (torch.arange(length)[:, None] - torch.arange(length)).abs()
        wide = torch.nn.functional.pad(flags, (0, length - 30)).bool()
        allowed = (distance <= module.one_sided_attn_window_size) | wide[:, None, :] | wide[:, :, None]
        assert not weights[~allowed[:, None].expand_as(weights)].any()
        valid = torch.nn.functional.pad(inputs.get("attention_mask", torch.ones_like(flags)), (0, length - 30))
        assert torch.allclose(weights.sum(-1) * valid[:, None], valid[:, None].float().expand(-1, 4, -1))
        local = mixed(weights, by_head(module.value(given), 4))
        whole = mixed(weights, by_head(module.value_global(given), 4))
        assert_close(torch.where(wide[..., None], whole, local), out, valid)


@pytest.mark.parametrize("length", [40, 50])
def test_blocks(length: int) -> None:
    model, inputs = BIG_BIRD.build(), feed(length, "right")
    seen, noted = ran(model, inputs, "BigBirdBlockSparseAttention")
    assert [one.form for one in seen] == ["blocks", "blocks"]
    for one in seen:
        given, out = noted[one.name]
        weights = one.weights()
        valid = torch.nn.functional.pad(inputs["attention_mask"], (0, weights.shape[2] - length))
        assert_close(mixed(weights, by_head(one.module.value(given), 4)) * valid[..., None], out, valid)
        assert not weights[0, :, :, length - 3 : length].any()
        assert torch.equal(torch.cat([w for _, w in one.strips(5000)], 2), weights)


def test_a_big_bird_that_trains_draws_blocks_and_is_refused() -> None:
    model = BIG_BIRD.build()
    model.train()
    _, seen, doubts = seen_in(model, feed(40))
    assert not seen and {doubt.reason for doubt in doubts} == {
        "it draws random blocks while it trains; call model.eval() first"
    }


@pytest.mark.parametrize("is_decoder", [False, True])
@pytest.mark.parametrize("rounds", [1, 3])
def test_hashed_and_local_chunks(rounds: int, is_decoder: bool) -> None:
    model, inputs = reformer(num_hashes=rounds, is_decoder=is_decoder).build(), feed(64, "right")
    for kind in ("LocalSelfAttention", "LSHSelfAttention"):
        seen, noted = ran(model, inputs, kind)
        assert [one.form for one in seen] == ["buckets"]
        given, out = noted[seen[0].name]
        weights, module = seen[0].weights(), seen[0].module
        assert_close(mixed(weights, by_head(module.value(given), 4)), out)
        assert torch.equal(torch.cat([w for _, w in seen[0].strips(5000)], 2), weights)
        if is_decoder:
            assert not weights.triu(1).any()


def deformable() -> Any:
    """A tiny module of deformable attention: 2 levels, 4 heads, 3 points."""
    from transformers.models.deformable_detr.modeling_deformable_detr import (
        DeformableDetrConfig,
        DeformableDetrMultiscaleDeformableAttention,
    )

    torch.manual_seed(0)
    config = DeformableDetrConfig(d_model=32, num_feature_levels=2, encoder_attention_heads=4)
    module = DeformableDetrMultiscaleDeformableAttention(config, num_heads=4, n_points=3).eval()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return torch.nn.ModuleDict({"attention": module})


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_deformable_attention_lies_where_it_samples(mode: Any) -> None:
    model = deformable()
    shapes = [(6, 5), (3, 4)]
    states = torch.randn(2, 42, 32)
    inputs = {
        "hidden_states": torch.randn(2, 7, 32),
        "encoder_hidden_states": states,
        "reference_points": torch.rand(2, 7, 2, 2),
        "spatial_shapes": torch.tensor(shapes),
        "spatial_shapes_list": shapes,
        "level_start_index": torch.tensor([0, 30]),
    }
    seen: list[Any] = []
    attention = model["attention"]
    with mode():
        plain, shares = attention(**inputs)
        with watching(model, seen.append):
            output, _ = attention(**inputs)
    assert torch.equal(plain, output)
    (one,) = seen
    assert one.name == "attention" and one.form == "sampled" and one.kind == "subunit"
    weights = one.weights()
    assert weights.shape == (2, 4, 7, 42)
    assert (weights.sum(-1) <= shares.sum((-1, -2)).transpose(1, 2) + 1e-5).all()
    with torch.no_grad():
        values = by_head(attention.value_proj(states), 4)
        assert_close(attention.output_proj(mixed(weights, values)), output)
    assert torch.allclose(torch.cat([w for _, w in one.strips(5000)], 2), weights)
