"""Tiny configurations: a family's own defaults with sizes made small by the names of their fields, inner ones too."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from scripts.census.overrides import OVERRIDES as TEXTS
from scripts.census.overrides_media import OVERRIDES as MEDIA

WIDTH, HEADS = 32, 4
OVERRIDES = {**TEXTS, **MEDIA}
WHOLE = ("rope_parameters", "model_args")  # dicts that an override replaces as a whole

# Field by name -> its tiny value, or a function of the default. The first that matches counts.
RULES: list[tuple[str, Any]] = [
    (r"codebook_size$", lambda v: min(v, 128)),
    (r"(^|_)vocab_size(_per_layer_input)?$|^num_embeddings$|_vocab_size$|group_vocab$", lambda v: min(v, 128)),
    (r"(num|n)_(hidden_)?layers?$|^(encoder|decoder)_layers$|^n_layers?$|^depth$|num_hidden_layers$|num_blocks$", 2),
    (r"(encoder|decoder|text|vision)_num_(hidden_)?layers$|_(layers|depth)$|^num_(encoder|decoder)_layers$", 2),
    (r"^(num_|n_)?(attention_)?heads?$|num_attention_heads$|_attention_heads$|^nhead$|num_heads$", HEADS),
    (r"^(head_dim|d_kv|kv_channels|attention_head_size|d_head|head_size|attention_head_dim|global_head_dim)$", 8),
    (r"^(qk_nope_head_dim|qk_rope_head_dim|v_head_dim|qk_head_dim)$", 8),
    (r"^(q_lora_rank|kv_lora_rank)$", 16),
    (r"^(hidden_size|d_model|n_embd|dim|hidden_dim|embed_dim|embedding_size|word_embed_proj_dim)$", WIDTH),
    (r"^(encoder|decoder)_hidden_dim$|_hidden_channels$", WIDTH),
    (r"(hidden_size|hidden_dim|embed_dim|d_model|proj_dim|projection_dim|embedding_size|projector_dim)$", WIDTH),
    (r"^(intermediate_size|ffn_dim|d_ff|n_inner|d_inner|hidden_dim_ff|ffn_hidden_size|dim_feedforward)$", 48),
    (r"(intermediate_size|ffn_dim|feed_forward_size|feedforward_dim|mlp_dim|ff_dim)$", 48),
    (r"max_position_embeddings$|^n_positions$|^max_(seq|sequence)_len(gth)?$", lambda v: min(v, 256)),
    (r"max_source_positions$", lambda v: min(v, 64)),
    (r"^(num_experts|num_local_experts|n_routed_experts|moe_num_experts)$", 4),
    (r"^(num_experts_per_tok|moe_topk|moe_k|n_group|topk_group|num_selected_experts|n_shared_experts)$", 1),
    (r"^num_queries$", 10),
    (r"^output_channels$", WIDTH),
    (r"^num_(spatial|uid)_rope_pairs(_per_axis)?$|(^|_)n_groups$", 1),
    (r"^(rotary_dim|rotary_emb_dim)$", 4),
    (r"^mamba_(n_heads|num_heads)$", 4),
    (r"^mamba_(d_head|head_dim)$", 16),
    (r"^(num_conv_pos_embeddings)$", 16),
    (r"^(num_conv_pos_embedding_groups)$", 2),
]


def tiny(kind: Any, **more: Any) -> Any:
    """A tiny config of this class; `more` goes over what its fields' names say."""
    return kind(**merged(settings_of(kind, _default(kind)), more))


def settings_of(kind: Any, default: Any) -> dict[str, Any]:
    """What to build a config of this class with, so that it and the configs inside it are tiny."""
    settings: dict[str, Any] = {}
    for name, sub in (getattr(kind, "sub_configs", None) or {}).items():
        inner = _value(default, name)
        if inner is None and not is_auto(sub) and dataclasses.is_dataclass(sub):
            inner = _default(sub)
        if isinstance(inner, Mapping):
            inner = None if is_auto(sub) else sub(**inner)
        if inner is not None and dataclasses.is_dataclass(type(inner)) and not is_auto(type(inner)):
            settings[name] = _staged(_unusual(inner) | settings_of(type(inner), inner))
            if is_auto(sub):
                settings[name]["model_type"] = inner.model_type
    return merged(own_settings(kind, default) | settings, OVERRIDES.get(kind.__name__, {}))


def _staged(settings: dict[str, Any]) -> dict[str, Any]:
    """A backbone whose stages are its layers gets as many layers as it is asked for maps, and the maps of them all."""
    wanted = settings.get("out_features")
    if wanted is None or "num_hidden_layers" not in settings or "depths" in settings:
        return settings
    count = max(2, len(wanted))
    names = [f"stage{number}" for number in range(count - len(wanted) + 1, count + 1)]
    return settings | {"num_hidden_layers": count, "out_features": names}


def _unusual(inner: Any) -> dict[str, Any]:
    """What a config inside another says, where its class says something else by itself."""
    kind: Any = type(inner)
    usual = _default(kind)
    names = [f.name for f in dataclasses.fields(kind) if f.name not in (getattr(kind, "sub_configs", None) or {})]
    both = {name: (_value(inner, name), _value(usual, name)) for name in (*names, "out_features", "out_indices")}
    changed = {name: its for name, (its, other) in both.items() if its is not None and its != other}
    if "out_features" in changed:
        changed.pop("out_indices", None)
    return {name: its for name, its in changed.items() if not name.startswith("_") and "rope" not in name}


def merged(settings: dict[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """`more` over settings; inside a config of its own too, unless that names another model or is in WHOLE."""
    result = dict(settings)
    for name, value in more.items():
        both = isinstance(value, Mapping) and isinstance(result.get(name), dict) and name not in WHOLE
        if both and value.get("model_type") in (None, result[name].get("model_type")):
            result[name] = merged(result[name], value)
        else:
            result[name] = value
    return result


def is_auto(kind: Any) -> bool:
    """Whether a config class stands for any model's."""
    return getattr(kind, "__name__", "") in ("AutoConfig", "PreTrainedConfig", "PretrainedConfig")


def _default(kind: Any) -> Any:
    """The default config of a class, or the first that it accepts."""
    try:
        return kind()
    except Exception:
        return kind(**OVERRIDES.get(kind.__name__, {}))


def own_settings(kind: Any, default: Any) -> dict[str, Any]:
    """The tiny values of a config's own fields."""
    settings: dict[str, Any] = {}
    passed_over = {*(getattr(kind, "attribute_map", {}) or {}), *(getattr(kind, "sub_configs", None) or {})}
    token = 1
    staged = any(isinstance(_value(default, n), list | tuple) for n in ("num_heads", "num_attention_heads"))
    for field in dataclasses.fields(kind):
        name = field.name
        if name in passed_over or name.startswith("_"):
            continue
        value = _value(default, name)
        if re.search(r"_token_(id|index)$|_token_idx$|^(image|video|audio)_token$", name) and isinstance(value, int):
            settings[name] = token
            token += 1
            continue
        small = _heads(default, name) if re.search(r"num_key_value_heads$|n_kv_heads$|num_kv_heads$", name) else None
        small = _layers(default, name) if small is None and name in ("layer_types", "layers_block_type") else small
        small = _small(name, value, staged) if small is None else small
        if small is not None:
            settings[name] = small
    return settings | _rotary(kind, default) | _depth(settings)


def _heads(config: Any, name: str) -> int | None:
    """Two heads of keys and values, or as many as there are queries where the default has so many."""
    value = _value(config, name)
    heads = next((v for n in ("num_attention_heads", "num_heads", "n_heads") if (v := _value(config, n))), None)
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return HEADS if value == heads or _value(config, "kv_lora_rank") else 1 if value == 1 else 2


def _layers(config: Any, name: str) -> list[str] | None:
    """Each type of layer that the default has, once, in order, and two layers at least."""
    value = _value(config, name)
    if not isinstance(value, list | tuple) or not value:
        return None
    types = list(dict.fromkeys(value))
    return types if len(types) > 1 else types * 2


def _depth(settings: Mapping[str, Any]) -> dict[str, Any]:
    types = settings.get("layer_types")
    return {} if types is None or "num_hidden_layers" not in settings else {"num_hidden_layers": len(types)}


def _rotary(kind: Any, config: Any) -> dict[str, Any]:
    """Rotary sections that fill half a head of 8, where the model's code has sections."""
    code = importlib.util.find_spec(kind.__module__.replace(".configuration_", ".modeling_"))
    if (
        code is None
        or code.origin is None
        or "vision" in kind.__name__.lower()
        or not hasattr(config, "rope_parameters")
    ):
        return {}
    if "mrope_section" not in Path(code.origin).read_text(encoding="utf-8"):
        return {}
    parameters = _value(config, "rope_parameters") or {"rope_type": "default", "rope_theta": 10000.0}
    if any(isinstance(value, Mapping) for value in parameters.values()):
        each = {name: {**value, "mrope_section": [2, 1, 1]} for name, value in parameters.items()}
        return {"rope_parameters": each}
    return {"rope_parameters": {**parameters, "mrope_section": [2, 1, 1]}}


def _value(config: Any, name: str) -> Any:
    """A field of a config; None where it has another value in each layer and none of its own."""
    try:
        return getattr(config, name, None)
    except Exception:
        return None


def _small(name: str, value: Any, staged: bool = False) -> Any:
    if isinstance(value, list | tuple) and re.search(r"depths?$|num_(hidden_)?layers$|^layers$", name):
        return [1] * len(value) if all(isinstance(v, int) for v in value) else None
    if name == "decoder_in_channels" and isinstance(value, list | tuple):
        return [WIDTH] * len(value)
    if name == "image_size":
        many = isinstance(value, list | tuple) and all(isinstance(v, int) for v in value)
        return [min(v, 64) for v in value] if many else min(value, 64) if isinstance(value, int) else None
    if isinstance(value, bool) or not isinstance(value, int) or value <= 1:
        return None
    if staged and re.search(r"hidden_size|embed_dim|hidden_dim", name):
        return None  # widths that grow from stage to stage, with the numbers of heads that fit them
    for pattern, small in RULES:
        if re.search(pattern, name):
            result: int = small(value) if isinstance(small, Callable) else small  # type: ignore[arg-type]
            return result
    return None
