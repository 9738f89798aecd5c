"""What to feed a model class, read off its forward and its config: several tries, the fullest first."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

LENGTH = 11
SPECIAL: dict[str, Any] = {
    "visual_feats": lambda c, g: torch.randn(2, 5, c.visual_feat_dim, generator=g),
    "visual_pos": lambda c, g: torch.rand(2, 5, c.visual_pos_dim, generator=g),
    "task_inputs": lambda c, g: torch.randint(0, 50, (2, c.task_seq_len), generator=g),
    "codebook_idx": lambda c, g: 2,
    "past_values": lambda c, g: torch.rand(2, past_length(c), generator=g),
    "past_time_features": lambda c, g: torch.rand(2, past_length(c), c.num_time_features, generator=g),
    "past_observed_mask": lambda c, g: torch.ones(2, past_length(c)),
    "future_values": lambda c, g: torch.rand(2, c.prediction_length, generator=g),
    "future_time_features": lambda c, g: torch.rand(2, c.prediction_length, c.num_time_features, generator=g),
}
VIDEO = ("timesformer", "videomae", "vivit", "vjepa2", "videomt", "videoprism")


def past_length(config: Any) -> int:
    lags = getattr(config, "lags_sequence", None) or [0]
    return int(config.context_length + max(lags))


def size_of(config: Any, *names: str, default: int) -> Any:
    for name in names:
        value = getattr(config, name, None)
        if isinstance(value, dict):
            value = next(iter(value.values()))
        if isinstance(value, int) and value > 0:
            return value
        if isinstance(value, list | tuple) and value and isinstance(value[0], int):
            return tuple(value)
    return default


def feeds(model: Any, padding: bool, seed: int = 1) -> Iterator[dict[str, Any]]:
    """Inputs to try, for two sequences or images; with padding the first sequence ends 3 tokens earlier."""
    names = set(inspect.signature(model.forward).parameters)
    config = model.config
    words, rest = texts(model, names, padding, seed), others(model, names, seed)
    pictures = {"pixel_values": images(config, seed)} if "pixel_values" in names else {}
    if model.main_input_name == "pixel_values" and pictures:
        yield pictures | rest
    if words or not pictures:
        yield words | pictures | rest
    if pictures and words:
        yield words | rest
    if pictures:
        yield words | rest | {"pixel_values": pictures["pixel_values"][:, None].expand(-1, 2, -1, -1, -1)}
        yield pictures | rest
    if "input_features" in rest:
        yield words | rest | {"input_features": rest["input_features"].transpose(1, 2).contiguous()}


def texts(model: Any, names: set[str], padding: bool, seed: int) -> dict[str, Any]:
    config = model.config
    make = torch.Generator().manual_seed(seed)
    vocabulary = size_of(config.get_text_config(), "vocab_size", "n_words", default=60)
    given: dict[str, Any] = {}
    if "input_ids" in names:
        low = min(vocabulary - 2, max(20, vocabulary // 4))
        shape = (2, LENGTH, config.n_codes_total) if hasattr(config, "n_codes_total") else (2, LENGTH)
        given["input_ids"] = torch.randint(low, vocabulary, shape, generator=make)
        if padding and "attention_mask" in names:
            mask = torch.ones(2, LENGTH, dtype=torch.int64)
            mask[0, -3:] = 0
            given["attention_mask"] = mask
    if "decoder_input_ids" in names and getattr(config, "is_encoder_decoder", False):
        given["decoder_input_ids"] = torch.randint(5, max(6, min(vocabulary, 50)), (2, 7), generator=make)
    if "bbox" in names:
        given["bbox"] = torch.randint(0, 100, (2, LENGTH, 4), generator=make).sort(-1).values
    return given


def others(model: Any, names: set[str], seed: int) -> dict[str, Any]:
    make = torch.Generator().manual_seed(seed)
    given: dict[str, Any] = {n: of(model.config, make) for n, of in SPECIAL.items() if n in names}
    if "input_values" in names:
        bins = getattr(model.config, "num_mel_bins", None)
        frames = size_of(model.config, "max_length", default=64)
        is_picture = model.config.model_type == "audio-spectrogram-transformer"
        given["input_values"] = torch.randn(2, frames, bins) if is_picture else torch.randn(2, 2000, generator=make)
    if "input_features" in names:
        given["input_features"] = features(model.config, make)
    return given


def images(config: Any, seed: int) -> Tensor:
    make = torch.Generator().manual_seed(seed)
    vision = getattr(config, "vision_config", None) or getattr(config, "image_config", None) or config
    side = size_of(vision, "image_size", "input_size", "img_size", default=64)
    height, width = side if isinstance(side, tuple) else (side, side)
    channels = size_of(vision, "num_channels", "in_channels", default=3)
    if config.model_type in VIDEO:
        frames = size_of(config, "num_frames", "frames_per_clip", default=2)
        return torch.randn(2, frames, channels, height, width, generator=make)
    return torch.randn(2, channels, height, width, generator=make)


def features(config: Any, make: torch.Generator) -> Tensor:
    audio = getattr(config, "audio_config", None) or getattr(config, "encoder_config", None) or config
    names = (
        "num_mel_bins",
        "input_feat_per_channel",
        "n_mels",
        "feature_size",
        "feature_projection_input_dim",
        "input_dim",
    )
    bins = size_of(audio, *names, default=80)
    frames = 2 * size_of(audio, "max_source_positions", default=50)
    return torch.randn(2, bins, min(frames, 3000), generator=make)
