"""Tiny models that attend in their own code, and what to feed them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers as tf
from torch import Tensor

from regard.hf.own_code.enter import watching
from regard.hf.own_code.seen import Doubt, Seen
from tests.hf.models import VOCAB, small

WORDS = {"vocab_size": VOCAB, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


@dataclass(frozen=True)
class Own:
    """name; make() a model; whether it is an encoder-decoder."""

    name: str
    make: Callable[[], Any]
    is_seq2seq: bool = False

    def build(self, std: float = 0.25, **settings: Any) -> Any:
        torch.manual_seed(0)
        model = self.make().eval()
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=std)
        return model


def own(name: str, kind: str, config: str, seq2seq: bool = False, **settings: Any) -> Own:
    return Own(name, lambda: getattr(tf, kind)(getattr(tf, config)(**settings)), seq2seq)


LED = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48}
LED |= {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "max_encoder_position_embeddings": 128}
RELATIVE = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]}
GPT = {"n_layer": 2, "n_head": 4, "n_embd": 32, "n_positions": 64, "rotary_dim": 4}
FALCON = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32}

CASES = [
    own("gptj", "GPTJForCausalLM", "GPTJConfig", **GPT, **WORDS),
    own("codegen", "CodeGenForCausalLM", "CodeGenConfig", **GPT, **WORDS),
    own(
        "gpt_neo",
        "GPTNeoForCausalLM",
        "GPTNeoConfig",
        **{"num_layers": 2, "num_heads": 4, "hidden_size": 32, "max_position_embeddings": 64, "window_size": 4},
        attention_types=[[["global", "local"], 1]],
        **WORDS,
    ),
    own("bloom", "BloomForCausalLM", "BloomConfig", n_layer=2, n_head=4, hidden_size=32, **WORDS),
    own("falcon", "FalconForCausalLM", "FalconConfig", attn_implementation="eager", **FALCON, **WORDS),
    own(
        "falcon alibi", "FalconForCausalLM", "FalconConfig", attn_implementation="eager", alibi=True, **FALCON, **WORDS
    ),
    own("mpt", "MptForCausalLM", "MptConfig", n_layers=2, n_heads=4, d_model=32, max_seq_len=64, **WORDS),
    own("deberta", "DebertaModel", "DebertaConfig", **RELATIVE, max_relative_positions=8, **small()),
    own("deberta_v2", "DebertaV2Model", "DebertaV2Config", **RELATIVE, position_buckets=8, **small()),
    own("mpnet", "MPNetModel", "MPNetConfig", **small()),
    own("xlnet", "XLNetModel", "XLNetConfig", d_model=32, n_layer=2, n_head=4, d_inner=48, **WORDS),
    own(
        "xglm",
        "XGLMForCausalLM",
        "XGLMConfig",
        **{"d_model": 32, "num_layers": 2, "attention_heads": 4, "ffn_dim": 48, "max_position_embeddings": 64},
        **WORDS,
    ),
    own("convbert", "ConvBertModel", "ConvBertConfig", embedding_size=16, **small()),
    own(
        "funnel", "FunnelModel", "FunnelConfig", d_model=32, n_head=4, d_head=8, d_inner=48, block_sizes=[1, 1], **WORDS
    ),
    own("tapas", "TapasModel", "TapasConfig", **small()),
]
LONGFORMER = own("longformer", "LongformerModel", "LongformerConfig", attention_window=[4, 8], **small())
BIG_BIRD = own("big_bird", "BigBirdModel", "BigBirdConfig", block_size=4, num_random_blocks=2, **small())
LED_MODEL = own("led", "LEDModel", "LEDConfig", True, attention_window=[4, 8], **LED, **WORDS)


def reformer(**settings: Any) -> Own:
    axial = {"axial_pos_shape": [8, 8], "axial_pos_embds_dim": [16, 16], "max_position_embeddings": 64}
    chunks = {
        "local_attn_chunk_length": 8,
        "lsh_attn_chunk_length": 8,
        "num_buckets": 4,
        "attn_layers": ["local", "lsh"],
    }
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "attention_head_size": 8, "feed_forward_size": 48}
    return own(
        "reformer", "ReformerModel", "ReformerConfig", **axial, **chunks, **sizes, hash_seed=0, **WORDS, **settings
    )


def feed(length: int = 11, padding: str | None = None) -> dict[str, Tensor]:
    """Two sequences of token ids; padding "left" or "right" pads the first by 3."""
    ids = torch.randint(5, VOCAB, (2, length), generator=torch.Generator().manual_seed(1))
    if padding is None:
        return {"input_ids": ids}
    mask = torch.ones_like(ids)
    where = slice(0, 3) if padding == "left" else slice(length - 3, length)
    mask[0, where], ids[0, where] = 0, 0
    return {"input_ids": ids, "attention_mask": mask}


def seen_in(model: Any, inputs: dict[str, Any]) -> tuple[Any, list[Seen], list[Doubt]]:
    """(output, what was seen, what stayed uncertain) of one forward; weights are read while the model runs."""
    seen: list[Seen] = []
    doubts: list[Doubt] = []

    def sink(one: Seen | Doubt) -> None:
        if isinstance(one, Doubt):
            doubts.append(one)
        else:
            one.weights()
            seen.append(one)

    with watching(model, sink):
        output = model(**inputs)
    return output, seen, doubts
