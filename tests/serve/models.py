"""Tiny decoders with random weights, and what transformers' generate writes with them."""

from __future__ import annotations

import copy
from typing import Any

import torch
import transformers as tf

from tests.hf.models import BY_NAME, GQA, Case, lm, small

MORE = [
    Case("qwen2", lm(tf.Qwen2Config, tf.Qwen2ForCausalLM, **GQA)),
    Case("olmo2", lm(tf.Olmo2Config, tf.Olmo2ForCausalLM, **GQA)),
    Case(
        "qwen3_moe",
        lm(
            tf.Qwen3MoeConfig,
            tf.Qwen3MoeForCausalLM,
            **GQA,
            head_dim=8,
            num_experts=4,
            num_experts_per_tok=2,
            moe_intermediate_size=24,
            decoder_sparse_step=1,
        ),
    ),
]
NAMES = ("gpt2", "llama", "qwen3", "mistral", "gemma2", "gemma3", "gpt_oss", "phi3", "mixtral", "opt", "gpt_neox")
CASES = [BY_NAME[name] for name in NAMES] + MORE


def build(case: Case, seed: int = 0) -> Any:
    return case.build(seed).float()


def generate(model: Any, prompt: list[int], new: int) -> tuple[list[int], list[float]]:
    """Greedy tokens, never stopping, and how far the best logit is above the second at each."""
    model.generation_config.eos_token_id = None
    with torch.no_grad():
        out = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones((1, len(prompt)), dtype=torch.long),
            max_new_tokens=new,
            do_sample=False,
            pad_token_id=0,
            return_dict_in_generate=True,
            output_logits=True,
        )
    gaps = [float(torch.diff(-torch.topk(logits[0].float(), 2).values)) for logits in out.logits]
    return out.sequences[0, len(prompt) :].tolist(), gaps


def copied(model: Any) -> Any:
    return copy.deepcopy(model)


__all__ = ["CASES", "build", "copied", "generate", "small"]
