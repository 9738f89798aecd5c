"""Models to serve in a benchmark: their shapes are those of published ones, their weights are random."""

from __future__ import annotations

from typing import Any

import torch

from regard.errors import UserError

SHAPES: dict[str, dict[str, Any]] = {
    "smollm-135m": {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49152,
    },
    "tiny": {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 512,
    },
}


def build(shape: str) -> Any:
    """A Llama of this shape in float32, its weights rounded to bfloat16. Raises UserError for an unknown name."""
    import transformers as tf

    if shape not in SHAPES:
        raise UserError(f"--shape {shape}: one of {', '.join(SHAPES)} is needed")
    torch.manual_seed(0)
    config = tf.LlamaConfig(**SHAPES[shape], max_position_embeddings=2048, tie_word_embeddings=True)
    model = tf.LlamaForCausalLM(config).eval()
    model.generation_config.eos_token_id = None
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.bfloat16())
    return model


def vocabulary(shape: str) -> int:
    """Token ids of a shape. Raises UserError for an unknown name."""
    if shape not in SHAPES:
        raise UserError(f"--shape {shape}: one of {', '.join(SHAPES)} is needed")
    return int(SHAPES[shape]["vocab_size"])
