"""Tiny models with random weights, one per architecture, and what to feed them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers as tf
from torch import Tensor

VOCAB = 99


@dataclass(frozen=True)
class Case:
    """name; build() a model in eval mode; inputs by kind; traits that tests ask for."""

    name: str
    make: Callable[[], Any]
    feed: str = "decoder"  # decoder, encoder, seq2seq, image, clip, speech, whisper
    traits: frozenset[str] = field(default_factory=frozenset)

    def build(self, seed: int = 0, std: float = 0.25) -> Any:
        torch.manual_seed(seed)
        model = self.make().eval()
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 or "sinks" in name:
                torch.nn.init.normal_(parameter, std=std)
        return model


def small(**more: Any) -> dict[str, Any]:
    return {
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 128,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        **more,
    }


GQA = {"num_key_value_heads": 2}
SEQ = {
    "vocab_size": VOCAB,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
}


def _gpt2() -> Any:
    config = tf.GPT2Config(
        n_layer=2, n_head=4, n_embd=32, vocab_size=VOCAB, n_positions=128, bos_token_id=1, eos_token_id=2
    )
    return tf.GPT2LMHeadModel(config)


def _gemma3() -> Any:
    config = tf.Gemma3TextConfig(
        **small(
            **GQA,
            head_dim=8,
            sliding_window=4,
            layer_types=["sliding_attention", "full_attention"],
            query_pre_attn_scalar=16,
        )
    )
    return tf.Gemma3ForCausalLM(config)


def _gpt_oss() -> Any:
    config = tf.GptOssConfig(
        **small(**GQA, head_dim=8, num_local_experts=2, num_experts_per_tok=1, sliding_window=4),
        layer_types=["sliding_attention", "full_attention"],
    )
    return tf.GptOssForCausalLM(config)


def _t5() -> Any:
    config = tf.T5Config(
        vocab_size=VOCAB,
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        pad_token_id=0,
        eos_token_id=2,
        decoder_start_token_id=0,
    )
    return tf.T5ForConditionalGeneration(config)


def _vision(config: type, model: type) -> Callable[[], Any]:
    settings = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    return lambda: model(config(**settings, image_size=20, patch_size=4))


def _clip() -> Any:
    text = small(projection_dim=16)
    vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = tf.CLIPConfig(text_config=text, vision_config={**vision, "image_size": 20, "patch_size": 4})
    return tf.CLIPModel(config)


def _whisper() -> Any:
    config = tf.WhisperConfig(**{**SEQ, "max_position_embeddings": 448}, num_mel_bins=8, max_source_positions=15)
    return tf.WhisperForConditionalGeneration(config)


def _wav2vec2() -> Any:
    config = tf.Wav2Vec2Config(
        **small(),
        conv_dim=(16, 16),
        conv_stride=(4, 2),
        conv_kernel=(8, 4),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
    )
    return tf.Wav2Vec2Model(config)


def lm(config: Any, model: Any, **more: Any) -> Callable[[], Any]:
    return lambda: model(config(**small(**more)))


CASES = [
    Case("gpt2", _gpt2, traits=frozenset({"packs", "generates"})),
    Case("llama", lm(tf.LlamaConfig, tf.LlamaForCausalLM, **GQA), traits=frozenset({"packs", "generates"})),
    Case("qwen3", lm(tf.Qwen3Config, tf.Qwen3ForCausalLM, **GQA, head_dim=8), traits=frozenset({"packs", "generates"})),
    Case(
        "mistral",
        lm(tf.MistralConfig, tf.MistralForCausalLM, **GQA, sliding_window=4),
        traits=frozenset({"packs", "generates"}),
    ),
    Case(
        "gemma2",
        lm(tf.Gemma2Config, tf.Gemma2ForCausalLM, **GQA, head_dim=8, sliding_window=4, query_pre_attn_scalar=16),
        traits=frozenset({"packs", "generates", "eager"}),
    ),
    Case("gemma3", _gemma3, traits=frozenset({"packs", "generates"})),
    Case("gpt_oss", _gpt_oss, traits=frozenset({"generates", "eager", "subunit"})),
    Case("phi3", lm(tf.Phi3Config, tf.Phi3ForCausalLM, **GQA), traits=frozenset({"packs", "generates"})),
    Case(
        "mixtral",
        lm(tf.MixtralConfig, tf.MixtralForCausalLM, **GQA, num_local_experts=2),
        traits=frozenset({"packs", "generates"}),
    ),
    Case("opt", lambda: tf.OPTForCausalLM(tf.OPTConfig(**small(ffn_dim=48, word_embed_proj_dim=32)))),
    Case("gpt_neox", lm(tf.GPTNeoXConfig, tf.GPTNeoXForCausalLM), traits=frozenset({"packs", "generates"})),
    Case("bert", lm(tf.BertConfig, tf.BertModel), "encoder"),
    Case("roberta", lm(tf.RobertaConfig, tf.RobertaModel), "encoder"),
    Case(
        "modernbert",
        lambda: tf.ModernBertModel(
            tf.ModernBertConfig(
                **small(num_hidden_layers=4, local_attention=4, cls_token_id=3, sep_token_id=4),
            )
        ),
        "encoder",
    ),
    Case(
        "distilbert",
        lambda: tf.DistilBertModel(tf.DistilBertConfig(vocab_size=VOCAB, dim=32, hidden_dim=48, n_layers=2, n_heads=4)),
        "encoder",
    ),
    Case("albert", lambda: tf.AlbertModel(tf.AlbertConfig(**small(embedding_size=16))), "encoder"),
    Case("t5", _t5, "seq2seq", frozenset({"generates"})),
    Case("bart", lambda: tf.BartForConditionalGeneration(tf.BartConfig(**SEQ)), "seq2seq", frozenset({"generates"})),
    Case("marian", lambda: tf.MarianMTModel(tf.MarianConfig(**SEQ)), "seq2seq", frozenset({"generates"})),
    Case("vit", _vision(tf.ViTConfig, tf.ViTModel), "image"),
    Case("dinov2", _vision(tf.Dinov2Config, tf.Dinov2Model), "image"),
    Case("clip", _clip, "clip"),
    Case("whisper", _whisper, "whisper"),
    Case("wav2vec2", _wav2vec2, "speech"),
]

BY_NAME = {case.name: case for case in CASES}


def feed(case: Case, *, length: int = 11, batch: int = 2, padding: str | None = None, seed: int = 1) -> dict[str, Any]:
    """Inputs of a case; padding "left" or "right" pads the first sequence by 3."""
    make = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, VOCAB, (batch, length), generator=make)
    mask = torch.ones_like(ids)
    if padding:
        where = slice(0, 3) if padding == "left" else slice(length - 3, length)
        mask[0, where], ids[0, where] = 0, 0
    text: dict[str, Any] = {"input_ids": ids} | ({"attention_mask": mask} if padding else {})
    image = torch.randn(batch, 3, 20, 20, generator=make)
    target = torch.randint(5, VOCAB, (batch, 7), generator=make)
    match case.feed:
        case "decoder" | "encoder":
            return text
        case "seq2seq":
            return text | {"decoder_input_ids": target}
        case "image":
            return {"pixel_values": image}
        case "clip":
            return text | {"pixel_values": image}
        case "whisper":
            return {"input_features": torch.randn(batch, 8, 30, generator=make), "decoder_input_ids": target}
        case "speech":
            return {"input_values": torch.randn(batch, 400, generator=make)}
    raise AssertionError(case.feed)


def eager_attentions(model: Any, inputs: dict[str, Any]) -> dict[str, list[Tensor]]:
    """What transformers' own eager attention says: by "stack" or "decoder cross", a list over layers."""
    before = model.config._attn_implementation
    with torch.no_grad(), warnings.catch_warnings():
        model.set_attn_implementation("eager")
        out = model(**inputs, output_attentions=True)
        model.set_attn_implementation(before)
    return attentions_of(out)


def attentions_of(out: Any) -> dict[str, list[Tensor]]:
    found: dict[str, list[Tensor]] = {}
    names = {
        "attentions": "self",
        "encoder_attentions": "encoder",
        "decoder_attentions": "decoder",
        "cross_attentions": "decoder cross",
    }
    for name, stack in names.items():
        given = getattr(out, name, None)
        if given is not None and len(given):
            found[stack] = list(given)
    for tower in ("text", "vision"):
        inner = getattr(out, f"{tower}_model_output", None)
        if inner is not None:
            found[tower] = list(inner.attentions)
    return found
