"""Inputs that single models or single arguments need, by the name of the argument or the type of the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

Make = Callable[[Any, Generator], Any]


def past_length(config: Any) -> int:
    lags = getattr(config, "lags_sequence", None) or [0]
    return int(config.context_length + max(lags))


def _ids(*shape: int, low: int = 20, high: int = 60) -> Make:
    return lambda c, g: torch.randint(low, high, shape, generator=g)


def _floats(*shape: int) -> Make:
    return lambda c, g: torch.randn(shape, generator=g)


SPECIAL: dict[str, Make] = {
    "visual_feats": lambda c, g: torch.randn(2, 5, c.visual_feat_dim, generator=g),
    "visual_pos": lambda c, g: torch.rand(2, 5, c.visual_pos_dim, generator=g),
    "task_inputs": lambda c, g: torch.randint(0, 50, (2, c.task_seq_len), generator=g),
    "codebook_idx": lambda c, g: 2,
    "past_values": lambda c, g: torch.rand(2, past_length(c), generator=g),
    "past_time_features": lambda c, g: torch.rand(2, past_length(c), c.num_time_features, generator=g),
    "past_observed_mask": lambda c, g: torch.ones(2, past_length(c)),
    "future_values": lambda c, g: torch.rand(2, c.prediction_length, generator=g),
    "future_time_features": lambda c, g: torch.rand(2, c.prediction_length, c.num_time_features, generator=g),
    "qformer_input_ids": _ids(2, 6),
    "prompt_pixel_values": lambda c, g: torch.randn(2, 3, c.image_size[0] // 2, c.image_size[1], generator=g),
    "prompt_masks": lambda c, g: torch.randn(2, 3, c.image_size[0] // 2, c.image_size[1], generator=g),
}


def _codes(config: Any, g: Generator, count: int) -> dict[str, Tensor]:
    return {"input_ids": torch.randint(5, 60, (2, 11, count), generator=g)}


def _decisions(c: Any, g: Generator) -> dict[str, Any]:
    return {
        "states": torch.randn(2, 5, c.state_dim, generator=g),
        "actions": torch.randn(2, 5, c.act_dim, generator=g),
        "rewards": torch.randn(2, 5, 1, generator=g),
        "returns_to_go": torch.randn(2, 5, 1, generator=g),
        "timesteps": torch.arange(5).expand(2, -1),
        "attention_mask": torch.ones(2, 5, dtype=torch.int64),
    }


def _oneformer(c: Any, g: Generator) -> dict[str, Any]:
    return {
        "pixel_values": torch.randn(2, 3, 64, 64, generator=g),
        "task_inputs": torch.randint(1, 50, (2, c.task_seq_len), generator=g),
    }


def _picture_and_text(c: Any, g: Generator) -> dict[str, Any]:
    return {
        "pixel_values": torch.randn(2, 3, 64, 64, generator=g),
        "input_ids": torch.tensor([[101, 20, 21, 22, 102, 23, 24, 102]] * 2) % 128,
    }


def _rag(c: Any, g: Generator) -> dict[str, Any]:
    ids = torch.randint(5, 60, (4, 9), generator=g)
    return {
        "input_ids": ids[:2],
        "context_input_ids": ids,
        "context_attention_mask": torch.ones_like(ids),
        "doc_scores": torch.randn(2, 2, generator=g),
        "decoder_input_ids": ids[:2, :5],
    }


def _seggpt(c: Any, g: Generator) -> dict[str, Any]:
    height, width = c.image_size[0] // 2, c.image_size[1]
    return {
        name: torch.randn(2, 3, height, width, generator=g)
        for name in ("pixel_values", "prompt_pixel_values", "prompt_masks")
    }


def _kosmos(c: Any, g: Generator) -> dict[str, Any]:
    places = torch.zeros(2, 11 + c.latent_query_num, dtype=torch.int64)
    places[:, 1 : 1 + c.latent_query_num] = 1
    return {
        "pixel_values": torch.randn(2, 3, c.vision_config.image_size, c.vision_config.image_size, generator=g),
        "input_ids": torch.randint(5, 60, places.shape, generator=g),
        "image_embeds_position_mask": places,
    }


def _colqwen2(c: Any, g: Generator) -> dict[str, Any]:
    vision = c.vlm_config.vision_config
    width = 3 * vision.temporal_patch_size * vision.patch_size**2
    ids = torch.randint(20, 60, (2, 15), generator=g)
    ids[:, 1:5] = c.vlm_config.image_token_id
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": torch.randn(2, 16, width, generator=g),
        "image_grid_thw": torch.tensor([[1, 4, 4], [1, 4, 4]]),
    }


def _idefics(c: Any, g: Generator) -> dict[str, Any]:
    side = c.vision_config.image_size
    return {
        "input_ids": torch.randint(5, 60, (2, 11), generator=g),
        "attention_mask": torch.ones(2, 11, dtype=torch.int64),
        "pixel_values": torch.randn(2, 1, 3, side, side, generator=g),
        "image_attention_mask": torch.ones(2, 11, 1, dtype=torch.int64),
    }


# model type -> all of its inputs
WHOLE: dict[str, Make] = {
    "csm": lambda c, g: _codes(c, g, c.num_codebooks),
    "kyutai_speech_to_text": lambda c, g: _codes(c, g, c.num_codebooks + 1),
    "decision_transformer": _decisions,
    "oneformer": _oneformer,
    "grounding-dino": _picture_and_text,
    "mm-grounding-dino": _picture_and_text,
    "dac": lambda c, g: {"input_values": torch.randn(2, 1, 2000, generator=g)},
    "encodec": lambda c, g: {"input_values": torch.randn(2, 1, 2000, generator=g)},
    "mimi": lambda c, g: {"input_values": torch.randn(2, 1, 4000, generator=g)},
    "superglue": lambda c, g: {"pixel_values": torch.rand(2, 2, 3, 64, 64, generator=g)},
    "efficientloftr": lambda c, g: {"pixel_values": torch.rand(2, 2, 3, 64, 64, generator=g)},
    "perceiver": lambda c, g: {"inputs": torch.randn(2, 11, c.d_model, generator=g)},
    "musicgen": lambda c, g: {
        "input_ids": torch.randint(5, 60, (2, 11), generator=g),
        "decoder_input_ids": torch.randint(5, 60, (2 * c.decoder.num_codebooks, 7), generator=g),
    },
    "musicgen_melody": lambda c, g: {
        "input_ids": torch.randint(5, 60, (2, 11), generator=g),
        "decoder_input_ids": torch.randint(5, 60, (2 * c.decoder.num_codebooks, 7), generator=g),
    },
    "dia": lambda c, g: {
        "input_ids": torch.randint(5, 60, (2, 11), generator=g),
        "decoder_input_ids": torch.randint(5, 60, (2, 7, c.decoder_config.num_channels), generator=g),
    },
    "rag": _rag,
    "patchtst": lambda c, g: {"past_values": torch.randn(2, c.context_length, c.num_input_channels, generator=g)},
    "patchtsmixer": lambda c, g: {"past_values": torch.randn(2, c.context_length, c.num_input_channels, generator=g)},
    "timesfm": lambda c, g: {
        "past_values": torch.randn(2, 64, generator=g),
        "past_values_padding": torch.zeros(2, 64, dtype=torch.int64),
        "freq": torch.zeros(2, 1, dtype=torch.int64),
    },
    "xclip": lambda c, g: {
        "pixel_values": torch.randn(2, c.vision_config.num_frames, 3, 64, 64, generator=g),
        "input_ids": torch.randint(5, 60, (2, 11), generator=g),
    },
    "granite_speech5_ctc": lambda c, g: {
        "input_features": torch.randn(2, 40, 4 * c.encoder_config.num_mel_bins, generator=g)
    },
    "xcodec": lambda c, g: {"input_values": torch.randn(2, 1, 2000, generator=g)},
    "speech-encoder-decoder": lambda c, g: {
        "input_values": torch.randn(2, 2000, generator=g),
        "decoder_input_ids": torch.randint(5, 60, (2, 7), generator=g),
    },
    "seggpt": _seggpt,
    "kosmos-2": _kosmos,
    "colqwen2": _colqwen2,
    "idefics": _idefics,
    "blt": lambda c, g: {"input_ids": torch.randint(5, 60, (2, 11), generator=g), "use_cache": False},
    "speecht5": lambda c, g: {
        "input_values": torch.randn(2, 11, c.hidden_size, generator=g),
        "decoder_input_values": torch.randn(2, 7, c.hidden_size, generator=g),
    },
    "clap": lambda c, g: {
        "input_ids": torch.randint(5, 60, (2, 11), generator=g),
        "input_features": torch.randn(2, 1, 256, c.audio_config.num_mel_bins, generator=g),
        "is_longer": torch.tensor([[False], [False]]),
    },
}
