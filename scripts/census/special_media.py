"""All the inputs of single models of pictures, films, sounds and drafts, by the type of the model."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Generator

Make = Callable[[Any, Generator], Any]


def _floats(g: Generator, *shape: int) -> Any:
    return torch.randn(shape, generator=g)


def _ids(g: Generator, *shape: int) -> Any:
    return torch.randint(20, 60, shape, generator=g)


def _draft(c: Any, g: Generator) -> dict[str, Any]:
    """What a draft model of Gemma 4 takes from the model it drafts for: embeddings, keys and values by layer type."""
    text, shared = c.text_config, {}
    for number, kind in enumerate(text.layer_types):
        layer = text.per_layer_config[number]
        shared[kind] = tuple(_floats(g, 2, layer.num_key_value_heads, 11, layer.head_dim) for _ in range(2))
    positions = torch.full((2, 1), 10)
    width = 2 * c.backbone_hidden_size
    return {"inputs_embeds": _floats(g, 2, 1, width), "shared_kv_states": shared, "position_ids": positions}


def _glimmer(c: Any, g: Generator) -> dict[str, Any]:
    width = c.hidden_size * len(c.target_layer_ids)
    return {"noise_embeds": _floats(g, 2, 4, c.hidden_size), "context_hidden_states": _floats(g, 2, 7, width)}


def _decision(c: Any, g: Generator) -> dict[str, Any]:
    return {
        "input_ids": _ids(g, 1, 11),
        "marks": torch.tensor([[4, 9]]),
        "num_options": torch.tensor([[2, 2]]),
        "question_type_ids": torch.tensor([[0, 0]]),
    }


def _pi0(c: Any, g: Generator) -> dict[str, Any]:
    side = c.vlm_config.vision_config.image_size
    count = (side // c.vlm_config.vision_config.patch_size) ** 2
    ids = _ids(g, 2, 6 + count)
    ids[:, :count] = c.vlm_config.image_token_id
    return {
        "action_embeds": _floats(g, 2, 5, c.dit_config.hidden_size),
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": _floats(g, 2, 1, 3, side, side),
        "pixel_attention_mask": torch.ones(2, 1, dtype=torch.bool),
    }


def _codec(c: Any, g: Generator) -> dict[str, Any]:
    return {"input_values": _floats(g, 2, 1, 3200), "input_features": _floats(g, 2, 10, 160)}


def _thinker(c: Any, g: Generator) -> dict[str, Any]:
    vision = c.vision_config
    ids = _ids(g, 2, 15)
    ids[:, 1:5] = c.image_token_id
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": _floats(g, 32, 3 * vision.temporal_patch_size * vision.patch_size**2),
        "image_grid_thw": torch.tensor([[1, 4, 4], [1, 4, 4]]),
    }


# model type -> all of its inputs
WHOLE: dict[str, Make] = {
    "gemma4_assistant": _draft,
    "gemma4_unified_assistant": _draft,
    "muse_glimmer_assistant": _glimmer,
    "jev": _decision,
    "pi0": _pi0,
    "depth_pro": lambda c, g: {"pixel_values": _floats(g, 1, 3, 128, 128)},
    "neucodec": _codec,
    "xcodec2": _codec,
    "tvp": lambda c, g: {"input_ids": _ids(g, 1, 11), "pixel_values": _floats(g, 1, c.num_frames, 3, 64, 64)},
    "pe_audio": lambda c, g: {"input_ids": _ids(g, 2, 11), "input_values": _floats(g, 2, 1, 2000)},
    "pe_video": lambda c, g: {"input_ids": _ids(g, 2, 11), "pixel_values_videos": _floats(g, 2, 3, 3, 32, 32)},
    "pe_audio_video": lambda c, g: {
        "input_ids": _ids(g, 2, 11),
        "input_values": _floats(g, 2, 1, 2000),
        "pixel_values_videos": _floats(g, 2, 3, 3, 32, 32),
    },
    "pp_formulanet": lambda c, g: {"pixel_values": _floats(g, 2, 3, 64, 64), "decoder_input_ids": _ids(g, 2, 7)},
    "videomt": lambda c, g: {"pixel_values_videos": _floats(g, 1, 2, 3, c.image_size, c.image_size)},
    "vjepa2": lambda c, g: {"pixel_values_videos": _floats(g, 1, c.frames_per_clip, 3, c.crop_size, c.crop_size)},
    "higgs_audio_v2_tokenizer": lambda c, g: {"input_values": _floats(g, 1, 1, 9600)},
    "pix2struct": lambda c, g: {
        "flattened_patches": torch.rand(2, 6, 2 + 3 * 16 * 16, generator=g),
        "decoder_input_ids": _ids(g, 2, 7),
    },
    "omdet-turbo": lambda c, g: {
        "pixel_values": _floats(g, 1, 3, 128, 128),
        "classes_input_ids": _ids(g, 3, 6),
        "classes_attention_mask": torch.ones(3, 6, dtype=torch.int64),
        "tasks_input_ids": _ids(g, 1, 8),
        "tasks_attention_mask": torch.ones(1, 8, dtype=torch.int64),
        "classes_structure": torch.tensor([3]),
    },
    "evolla": lambda c, g: {
        "input_ids": _ids(g, 2, 11),
        "attention_mask": torch.ones(2, 11, dtype=torch.int64),
        "protein_input_ids": torch.randint(4, 20, (2, 9), generator=g),
        "protein_attention_mask": torch.ones(2, 9, dtype=torch.int64),
    },
    "voxtral_realtime": lambda c, g: {"input_ids": _ids(g, 2, 16), "input_features": _floats(g, 2, 128, 128)},
    "qwen3_omni_moe_thinker": _thinker,
    "timm_backbone": lambda c, g: {"pixel_values": _floats(g, 2, 3, 224, 224)},
    "timm_wrapper": lambda c, g: {"pixel_values": _floats(g, 2, 3, 32, 32)},
    "pix2struct_text_model": lambda c, g: {"input_ids": _ids(g, 2, 11)},
}


def _session(model: Any, g: Generator) -> Any:
    """A film of three frames, in the model's own record of what it follows."""
    module = sys.modules[type(model).__module__]
    kind = next(kind for name, kind in vars(module).items() if name.endswith("VideoInferenceSession"))
    side = getattr(model.config, "image_size", 56)
    return kind(video=_floats(g, 3, 3, side, side), video_height=side, video_width=side, dtype=torch.float32)


def _followed(model: Any, g: Generator) -> dict[str, Any]:
    """The second frame of a film, where a point on the first says what to follow: memory attends to the first."""
    session = _session(model, g)
    point = {"point_coords": torch.tensor([[[[20.0, 30.0]]]]), "point_labels": torch.ones(1, 1, 1, dtype=torch.int32)}
    session.add_point_inputs(session.obj_id_to_idx(1), 0, point)
    session.obj_with_new_inputs = [1]
    with torch.no_grad():
        model(inference_session=session, frame_idx=0)
    return {"inference_session": session, "frame_idx": 1}


def _prompted(model: Any, g: Generator) -> dict[str, Any]:
    """The first frame of a film and words that say what to follow."""
    session = _session(model, g)
    number = session.add_prompt("a bird")
    session.prompt_input_ids[number] = _ids(g, 1, 8)
    session.prompt_attention_masks[number] = torch.ones(1, 8, dtype=torch.int64)
    return {"inference_session": session, "frame_idx": 0}


# model type -> all of its inputs, made with the model itself
FILMED: dict[str, Make] = {
    "sam2_video": _followed,
    "edgetam_video": _followed,
    "sam3_tracker_video": _followed,
    "sam3_video": _prompted,
}
