"""Tiny configurations: a family's own defaults with sizes made small by the names of their fields."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

from scripts.census.overrides import OVERRIDES

# Field by name -> its tiny value (a function of the default). The first that matches counts.
RULES: list[tuple[str, Any]] = [
    (r"^codebook_size$", lambda v: min(v, 128)),
    (r"(^|_)vocab_size$|^num_embeddings$", lambda v: min(v, 160)),
    (r"vocab_size_per_layer_input$", lambda v: min(v, 160)),
    (r"(num|n)_(hidden_)?layers?$|^(encoder|decoder)_layers$|^n_layers?$|^depth$|num_hidden_layers$", 2),
    (r"(encoder|decoder|text|vision)_num_(hidden_)?layers$|_(layers|depth)$|^num_(encoder|decoder)_layers$", 2),
    (r"num_key_value_heads$|n_kv_heads$|num_kv_heads$", 2),
    (r"^(num_|n_)?(attention_)?heads?$|num_attention_heads$|(encoder|decoder)_attention_heads$|^nhead$|num_heads$", 4),
    (r"^(head_dim|d_kv|kv_channels|attention_head_size|d_head|head_size)$", 8),
    (r"^(qk_nope_head_dim|qk_rope_head_dim|v_head_dim|qk_head_dim)$", 8),
    (r"^(q_lora_rank|kv_lora_rank)$", 16),
    (r"^(hidden_size|d_model|n_embd|dim|hidden_dim|embed_dim|embedding_size|word_embed_proj_dim|projection_dim)$", 32),
    (r"(hidden_size|hidden_dim|embed_dim|d_model|proj_dim|projection_dim|embedding_size|projector_dim)$", 32),
    (r"^(intermediate_size|ffn_dim|d_ff|n_inner|d_inner|hidden_dim_ff|ffn_hidden_size|dim_feedforward)$", 48),
    (r"(intermediate_size|ffn_dim|feed_forward_size|feedforward_dim|mlp_dim|ff_dim)$", 48),
    (
        r"max_position_embeddings$|^n_positions$|^max_(seq|sequence)_len(gth)?$|max_source_positions$",
        lambda v: min(v, 256),
    ),
    (r"^(num_experts|num_local_experts|n_routed_experts|moe_num_experts)$", 4),
    (r"^(num_experts_per_tok|moe_topk|moe_k|n_group|topk_group|num_selected_experts|n_shared_experts)$", 1),
    (r"^num_queries$", 10),
    (r"^(rotary_dim|rotary_emb_dim)$", 4),
]


def tiny(kind: Any, **more: Any) -> Any:
    """A tiny config of this class; `more` goes over what its fields' names say."""
    settings: dict[str, Any] = {}
    more = {**OVERRIDES.get(kind.__name__, {}), **more}
    default = kind()
    for name, sub in (getattr(kind, "sub_configs", None) or {}).items():
        inner = getattr(default, name, None)
        kept = more.pop(name, {})
        if "model_type" in kept:  # another model than the default one
            settings[name] = kept
            continue
        if inner is not None and dataclasses.is_dataclass(type(inner)) and not _is_auto(type(inner)):
            settings[name] = tiny_settings(type(inner), inner) | OVERRIDES.get(type(inner).__name__, {}) | kept
            if _is_auto(sub):
                settings[name]["model_type"] = inner.model_type
    settings |= tiny_settings(kind, default, set(settings))
    return kind(**{**settings, **more})


def _is_auto(kind: Any) -> bool:
    return getattr(kind, "__name__", "") in ("AutoConfig", "PreTrainedConfig", "PretrainedConfig")


def tiny_settings(kind: Any, default: Any, taken: set[str] = frozenset()) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    renamed = getattr(kind, "attribute_map", {}) or {}
    token = 1
    staged = any(isinstance(getattr(default, n, None), list | tuple) for n in ("num_heads", "num_attention_heads"))
    for field in dataclasses.fields(kind):
        name = field.name
        if name in taken or name in renamed or name.startswith("_"):
            continue
        value = _value(default, name)
        if name == "num_key_value_heads" and _value(default, "kv_lora_rank"):
            settings[name] = 4  # latent attention makes keys and values for every head
            continue
        if re.search(r"_token_(id|index)$|_token_idx$|^(image|video|audio)_token$", name) and isinstance(value, int):
            settings[name] = token
            token += 1
            continue
        sub = getattr(kind, "sub_configs", None) or {}
        if name in sub:
            continue
        small = _small(name, value, staged)
        if small is not None:
            settings[name] = small
    return settings


def _value(config: Any, name: str) -> Any:
    """A field of a config; None where it has another value in each layer and none of its own."""
    try:
        return getattr(config, name, None)
    except Exception:
        return None


def _small(name: str, value: Any, staged: bool = False) -> Any:
    if isinstance(value, list | tuple) and re.search(r"depths?$|num_(hidden_)?layers$|^layers$", name):
        return [1] * len(value) if all(isinstance(v, int) for v in value) else None
    if isinstance(value, bool) or not isinstance(value, int) or value <= 1:
        return None
    if staged and re.search(r"hidden_size|embed_dim|hidden_dim", name):
        return None  # widths that grow from stage to stage, with the numbers of heads that fit them
    if name == "image_size" and value > 64:
        return 64
    for pattern, small in RULES:
        if re.search(pattern, name):
            result: int = small(value) if isinstance(small, Callable) else small  # type: ignore[arg-type]
            return result
    return None
