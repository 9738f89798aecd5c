"""Families that are unlike the others: each keeps its bits, is exact to the last weight, and has axes of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers as tf
from torch import Tensor

from regard.hf.attach import attach
from regard.hf.errors import Unsupported
from tests.hf.exactness import assert_exact, in_eager
from tests.hf.models import BY_NAME, SEQ, VOCAB, Case, feed, small

IDS = torch.randint(5, VOCAB, (2, 11), generator=torch.Generator().manual_seed(1))
LEFT, RIGHT = torch.ones_like(IDS), torch.ones_like(IDS)
LEFT[0, :3], RIGHT[0, 8:] = 0, 0
IMAGE = torch.randn(2, 3, 20, 20, generator=torch.Generator().manual_seed(2))
VISION = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
PATCHES = {**VISION, "image_size": 20, "patch_size": 4}
Made = tuple[Any, dict[str, Any]]


def text(padding: Tensor = RIGHT) -> dict[str, Any]:
    return {"input_ids": IDS, "attention_mask": padding}


def built(make: Callable[[], Made]) -> Made:
    torch.manual_seed(0)
    model, inputs = make()
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 or "sinks" in name:
            torch.nn.init.normal_(parameter, std=min(0.25, 1.4 / parameter.shape[-1] ** 0.5))
    return model.eval(), inputs


def doge() -> Made:
    """Computes a mask of its own from the one that it is given, unless that is a BlockMask."""
    return tf.DogeForCausalLM(tf.DogeConfig(**small(num_key_value_heads=2))), text(LEFT)


def deepseek_v32() -> Made:
    """Folds the keys that its indexer chose into the mask, if its implementation is called "eager" or "sdpa"."""
    ranks = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}
    experts = {"n_routed_experts": 2, "num_experts_per_tok": 1, "n_group": 1, "topk_group": 1, "n_shared_experts": 1}
    sizes = small(num_key_value_heads=4, moe_intermediate_size=16, first_k_dense_replace=1)
    config = tf.DeepseekV32Config(**sizes, **ranks, **experts, index_topk=4, index_n_heads=2, index_head_dim=16)
    return tf.DeepseekV32ForCausalLM(config), text(LEFT)


def gemma4() -> Made:
    """Slices its masks; later layers use the keys of earlier ones."""
    types = ["sliding_attention", "full_attention"] * 2
    config = tf.Gemma4TextConfig(
        **small(num_hidden_layers=4, num_key_value_heads=2),
        **{"head_dim": 8, "global_head_dim": 8, "sliding_window": 4, "layer_types": types, "num_kv_shared_layers": 2},
        **{"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": VOCAB, "enable_moe_block": False},
    )
    return tf.Gemma4ForCausalLM(config), text(LEFT)


def layoutlm() -> Made:
    """Makes masks [B, 1, 1, keys] by itself."""
    boxes = torch.randint(0, 50, (2, 11, 4), generator=torch.Generator().manual_seed(3)).sort(-1).values
    return tf.LayoutLMModel(tf.LayoutLMConfig(**small(), max_2d_position_embeddings=64)), text() | {"bbox": boxes}


def switch() -> Made:
    sizes = {"vocab_size": VOCAB, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
    config = tf.SwitchTransformersConfig(**sizes, num_decoder_layers=2, num_experts=2, decoder_start_token_id=0)
    return tf.SwitchTransformersForConditionalGeneration(config), text() | {"decoder_input_ids": IDS[:, :7]}


def nllb_moe() -> Made:
    config = tf.NllbMoeConfig(**SEQ, num_experts=2, expert_capacity=8)
    return tf.NllbMoeForConditionalGeneration(config), text() | {"decoder_input_ids": IDS[:, :7]}


def siglip2() -> Made:
    """Computes with the mask of its image; the head that pools it attends in its own code."""
    config = tf.Siglip2Config(
        text_config=small(max_position_embeddings=64), vision_config={**VISION, "num_patches": 16, "patch_size": 4}
    )
    flags = torch.ones(2, 16, dtype=torch.long)
    flags[0, 12:] = 0
    pixels = torch.randn(2, 16, 48, generator=torch.Generator().manual_seed(2))
    shapes = torch.tensor([[3, 4], [4, 4]])
    image = {"pixel_values": pixels, "pixel_attention_mask": flags, "spatial_shapes": shapes}
    return tf.Siglip2Model(config), text() | image


def git() -> Made:
    return tf.GitModel(tf.GitConfig(vision_config=PATCHES, **small())), text() | {"pixel_values": IMAGE}


def blip_2() -> Made:
    """Three stacks: a picture's, learned queries that attend to it, and a text with their outputs in it."""
    config = tf.Blip2Config(
        vision_config=PATCHES,
        qformer_config=small(cross_attention_frequency=2, encoder_hidden_size=32),
        text_config={"model_type": "opt", **small(ffn_dim=48, word_embed_proj_dim=32)},
        num_query_tokens=5,
        image_token_index=4,
    )
    ids = IDS.clone()
    ids[:, :5] = 4
    return tf.Blip2ForConditionalGeneration(config), {"input_ids": ids, "attention_mask": RIGHT, "pixel_values": IMAGE}


def kosmos2() -> Made:
    words = {"vocab_size": VOCAB, "max_position_embeddings": 64, "embed_dim": 32, "layers": 2, "ffn_dim": 48}
    config = tf.Kosmos2Config(text_config={**words, "attention_heads": 4}, vision_config=PATCHES, latent_query_num=5)
    where = torch.zeros_like(IDS)
    where[:, 1:6] = 1
    return tf.Kosmos2ForConditionalGeneration(config), {
        **{"input_ids": IDS, "attention_mask": torch.ones_like(IDS), "pixel_values": IMAGE},
        "image_embeds_position_mask": where,
    }


def musicgen() -> Made:
    """Two text configs, one of them a sound's."""
    words = {"vocab_size": VOCAB, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
    sound = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 48}
    codec = {"num_filters": 4, "num_residual_layers": 1, "upsampling_ratios": [2, 2], "codebook_size": 16}
    config = tf.MusicgenConfig(
        text_encoder={"model_type": "t5", **words},
        decoder={**sound, "num_codebooks": 2, "max_position_embeddings": 64, "bos_token_id": 49, "pad_token_id": 49},
        audio_encoder={"model_type": "encodec", **codec, "hidden_size": 8, "codebook_dim": 8, "num_lstm_layers": 1},
    )
    codes = torch.randint(0, 48, (4, 7), generator=torch.Generator().manual_seed(3))
    return tf.MusicgenForConditionalGeneration(config), text() | {"decoder_input_ids": codes}


def llama4_vision() -> Made:
    """Its eager function has another name than all others."""
    sizes = {**VISION, "intermediate_size": 128, "image_size": 16, "patch_size": 4, "vision_output_dim": 32}
    config = tf.Llama4VisionConfig(**sizes, projector_input_dim=32, projector_output_dim=32, pixel_shuffle_ratio=0.5)
    return tf.Llama4VisionModel(config), {"pixel_values": IMAGE[..., :16, :16]}


FAMILIES = [doge, deepseek_v32, gemma4, layoutlm, switch, nllb_moe, siglip2, git, blip_2, kosmos2, musicgen]
FAMILIES += [llama4_vision]


@pytest.mark.parametrize("loaded", ["as usual", "eager"])
@pytest.mark.parametrize("make", FAMILIES, ids=lambda make: make.__name__)
def test_a_family_unlike_the_others_is_exact(make: Callable[[], Made], loaded: str) -> None:
    model, inputs = built(make)
    if loaded == "eager":
        with in_eager(model):
            assert_exact(model, inputs)
    else:
        trace = assert_exact(model, inputs)
        assert trace.made["problems"] == []


def test_each_stack_has_an_axis_of_its_own() -> None:
    model, inputs = built(blip_2)
    trace = assert_exact(model, inputs)
    lengths = {name: tokens.axis.length for name, tokens in trace.axes.items()}
    assert lengths == {"vision": 26, "encoder": 5, "text": 11}
    cross = [layer for layer in trace.layers if layer.kind == "cross"]
    assert [(layer.query_axis, layer.key_axis) for layer in cross] == [("encoder", "vision")]
    assert trace.axes["text"].text[0][:6] == [f"[image {i}]" for i in range(5)] + [str(int(IDS[0, 5]))]


def test_what_no_call_came_from_is_named() -> None:
    model, inputs = built(siglip2)
    trace = assert_exact(model, inputs)
    assert "vision_model.head.attention" in [layer.name for layer in trace.layers]  # seen in its own code
    with torch.no_grad(), attach(model.text_model) as trace:
        model.text_model(**text())
    assert trace.made["not_reached"] == []
    with torch.no_grad(), attach(model) as trace:
        model.text_model(**text())
    assert [name.split(".")[0] for name in trace.made["not_reached"]] == ["vision_model"] * 3


def test_layers_that_share_keys_have_the_last_rows_alone_in_a_generation() -> None:
    model, inputs = built(gemma4)
    settings: dict[str, Any] = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
    plain = model.generate(**inputs, **settings)
    with attach(model) as steps:
        assert torch.equal(plain, model.generate(**inputs, **settings))
    mask = torch.cat([LEFT, torch.ones_like(plain[:, 11:])], 1)[:, :-1]
    whole = assert_exact(model, {"input_ids": plain[:, :-1], "attention_mask": mask})
    for a, b in zip(steps.layers, whole.layers, strict=True):
        first = 0 if a.index < 2 else 10
        for batch in range(2):
            near = steps.weights(a, 1, batch=batch)[first:], whole.weights(b, 1, batch=batch)[first:]
            rows = mask[batch, first:, None]
            assert torch.allclose(near[0] * rows, near[1] * rows, atol=1e-5)
        valid = steps.axes[a.query_axis].axis.valid
        assert torch.equal(valid[:, first:], mask[:, first:].bool()) and not bool(valid[:, :first].any() and first)


# ---- encoder-decoders that write several sequences at once -----------------------------------------------------------

WRITERS = [BY_NAME[name] for name in ("t5", "bart", "marian")]


@pytest.mark.parametrize("case", WRITERS, ids=lambda case: case.name)
def test_several_sequences_of_one_prompt_are_seen(case: Case) -> None:
    model, inputs = case.build(), feed(case, padding="right")
    inputs.pop("decoder_input_ids")
    settings: dict[str, Any] = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": True, "num_return_sequences": 3}
    torch.manual_seed(0)
    plain = model.generate(**inputs, **settings)
    torch.manual_seed(0)
    with attach(model) as trace:
        assert torch.equal(plain, model.generate(**inputs, **settings))
    cross = next(layer for layer in trace.layers if layer.kind == "cross")
    keys = trace.axes[cross.key_axis]
    assert keys.axis.positions.shape == (6, 11)
    assert torch.equal(keys.axis.ids[::3], inputs["input_ids"]) and torch.equal(keys.axis.valid[2], keys.axis.valid[0])
    weights = trace.weights(cross, 0, batch=1)
    assert weights.shape == (4, 11) and float(weights[:, 8:].abs().max()) == 0.0


@pytest.mark.parametrize("case", WRITERS, ids=lambda case: case.name)
def test_reordered_beams_are_refused_in_one_sentence(case: Case) -> None:
    model, inputs = case.build(), feed(case)
    inputs.pop("decoder_input_ids")
    with pytest.raises(Unsupported, match="beam search does this"), attach(model):
        model.generate(**inputs, num_beams=4, max_new_tokens=8, min_new_tokens=8, do_sample=False)


@pytest.mark.parametrize("how", [{"backend": "strips"}, {"mechanism": "causal"}], ids=["backend", "mechanism"])
@pytest.mark.parametrize("make", [doge, gemma4], ids=lambda make: make.__name__)
def test_an_output_computed_elsewhere_is_the_models_own(make: Callable[[], Made], how: dict[str, Any]) -> None:
    model, inputs = built(make)
    with torch.no_grad():
        plain = model(**inputs).logits
        with attach(model, watch=(), **how):
            out = model(**inputs).logits
    seen = inputs["attention_mask"].bool() if "attention_mask" in inputs else torch.ones(plain.shape[:2]).bool()
    assert (out - plain)[seen].abs().max() <= 1e-4
