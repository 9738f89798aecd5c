"""What to feed a model class, read off its forward and its config: several tries, the fullest first."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from scripts.census.special import SPECIAL
from scripts.census.special import WHOLE as WORDS
from scripts.census.special_media import FILMED
from scripts.census.special_media import WHOLE as MEDIA

LENGTH = 11
VIDEO = ("timesformer", "videomae", "vivit", "vjepa2", "videomt", "videoprism")
SAID = re.compile(r"(image|video|audio|multimodal)?[^.]*tokens?(?: \()?:? ?(\d+)\D+(\d+)", re.IGNORECASE)
Inputs = dict[str, Any]
WHOLE = {**WORDS, **MEDIA}


def fed(model: Any, padding: bool) -> Iterator[Inputs]:
    """Inputs to try; whoever tries sends the error back, so that a text gets as many places for media as it says."""
    for number in range(len(list(feeds(model, padding, {})))):
        counts: dict[str, int] = {}
        for _ in range(4):
            inputs = list(feeds(model, padding, counts))[number]
            error = yield inputs
            told = None if error is None else asked_for(str(error), inputs)
            if told is None or told.items() <= counts.items():
                break
            counts |= told


def asked_for(error: str, inputs: Mapping[str, Any]) -> dict[str, int] | None:
    """media -> how many tokens of it each of two texts must hold, by what an error says, or None."""
    said = SAID.search(" ".join(error.split()))
    if said is None or "match" not in error or "input_ids" not in inputs:
        return None
    kind = (said[1] or "image").lower()
    if kind == "multimodal":
        kind = "image" if "pixel_values" in inputs else "audio"
    return {kind: -(-int(said[3]) // inputs["input_ids"].shape[0])}


def size_of(config: Any, *names: str, default: int) -> Any:
    for name in names:
        value = getattr(config, name, None)
        if isinstance(value, dict):
            value = (value["height"], value["width"]) if "height" in value else next(iter(value.values()))
        if isinstance(value, int) and value > 0:
            return value
        if isinstance(value, list | tuple) and value and isinstance(value[0], int):
            return tuple(value)
    return default


def feeds(model: Any, padding: bool, counts: Mapping[str, int], seed: int = 1) -> Iterator[Inputs]:
    """Inputs for two sequences or images; with padding the first sequence ends 3 tokens earlier.

    counts: how many tokens of each text stand for an image, a video or a sound.
    """
    names = set(inspect.signature(model.forward).parameters)
    config = model.config
    make = torch.Generator().manual_seed(seed)
    if config.model_type in FILMED:
        yield FILMED[config.model_type](model, make)
        return
    if config.model_type in WHOLE:
        yield WHOLE[config.model_type](config, make)
        return
    words, rest = texts(model, names, padding, counts, seed), others(model, names, seed)
    pictures = list(images(model, names, seed)) if names & {"pixel_values", "pixel_values_videos"} else []
    if str(model.main_input_name).startswith("pixel_values"):
        for image in pictures:
            yield image | rest
    for image in pictures:
        yield words | image | rest
    if words or not pictures:
        yield words | rest
    for image in pictures:
        yield image | rest
    if "input_features" in rest:
        yield words | rest | {"input_features": rest["input_features"].transpose(1, 2).contiguous()}
    if words:
        yield words


def texts(model: Any, names: set[str], padding: bool, counts: Mapping[str, int], seed: int) -> Inputs:
    config = model.config
    make = torch.Generator().manual_seed(seed)
    vocabulary = size_of(config.get_text_config(), "vocab_size", "n_words", default=60)
    length = LENGTH + sum(counts.values())
    given: Inputs = {}
    if "input_ids" in names:
        low = min(vocabulary - 2, max(20, vocabulary // 4))
        shape = (2, length, config.n_codes_total) if hasattr(config, "n_codes_total") else (2, length)
        given["input_ids"] = torch.randint(low, vocabulary, shape, generator=make)
        first, kinds = 1, torch.zeros(2, length, dtype=torch.int64)
        for kind, count in counts.items():
            given["input_ids"][:, first : first + count] = media_token(config, kind)
            kinds[:, first : first + count] = ("text", "image", "video", "audio").index(kind)
            first += count
        if counts and "mm_token_type_ids" in names:
            given["mm_token_type_ids"] = kinds
        if padding and "attention_mask" in names:
            mask = torch.ones(2, length, dtype=torch.int64)
            mask[0, -3:] = 0
            given["attention_mask"] = mask
    if "decoder_input_ids" in names and getattr(config, "is_encoder_decoder", False):
        given["decoder_input_ids"] = torch.randint(5, max(6, min(vocabulary, 50)), (2, 7), generator=make)
    if "bbox" in names:
        given["bbox"] = torch.randint(0, 100, (2, length, 4), generator=make).sort(-1).values
    return given


def media_token(config: Any, kind: str) -> int:
    """The token id that stands for a piece of media, by the name of a field of the config."""
    names = [f"{kind}_token_id", f"{kind}_token_index", f"{kind}_token_idx", f"{kind}_token", f"{kind}_patch_id"]
    parts = [config, getattr(config, "text_config", None)]
    found = (getattr(part, name, None) for part in parts for name in names)
    return next((token for token in found if isinstance(token, int)), 1)


def others(model: Any, names: set[str], seed: int) -> Inputs:
    make = torch.Generator().manual_seed(seed)
    given: Inputs = {n: of(model.config, make) for n, of in SPECIAL.items() if n in names}
    if "input_values" in names:
        bins = getattr(model.config, "num_mel_bins", None)
        frames = size_of(model.config, "max_length", default=64)
        is_picture = model.config.model_type == "audio-spectrogram-transformer"
        given["input_values"] = torch.randn(2, frames, bins) if is_picture else torch.randn(2, 2000, generator=make)
    if "input_features" in names:
        given["input_features"] = features(model.config, make)
        frames = given["input_features"].shape[-1]
        for name in ("input_features_mask", "feature_attention_mask"):
            if name in names:
                given[name] = torch.ones(2, frames, dtype=torch.int64)
    return given


def images(model: Any, names: set[str], seed: int) -> Iterator[Inputs]:
    """Pictures in the forms that models take: whole, in patches with their grid, in several crops."""
    config = model.config
    make = torch.Generator().manual_seed(seed)
    vision = next((v for n in ("vision_config", "image_config") if (v := getattr(config, n, None)) is not None), config)
    channels = size_of(vision, "num_channels", "in_channels", "in_chans", default=3)
    patch = size_of(vision, "patch_size", "spatial_patch_size", default=8)
    patch = patch[0] if isinstance(patch, tuple) else patch
    if "image_grid_thw" in names or "grid_thw" in names:
        grid = torch.tensor([[1, 4, 4], [1, 4, 4]])
        name = "image_grid_thw" if "image_grid_thw" in names else "grid_thw"
        for frames in dict.fromkeys((size_of(vision, "temporal_patch_size", default=1), 1)):
            flat = torch.randn(32, channels * frames * patch**2, generator=make)
            yield {"pixel_values": flat, name: grid}
    if "spatial_shapes" in names:
        flat = torch.randn(2, 16, channels * patch**2, generator=make)
        yield {
            "pixel_values": flat,
            "spatial_shapes": torch.tensor([[4, 4], [4, 4]]),
            "pixel_attention_mask": torch.ones(2, 16, dtype=torch.int64),
        }
    if "image_position_ids" in names:
        at = torch.stack(torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij"), -1).flatten(0, 1)
        flat = torch.rand(2, 16, channels * patch**2, generator=make)
        yield {"pixel_values": flat, "image_position_ids": at.expand(2, -1, -1)}
    whole = _whole(config, vision, channels, make)
    if "pixel_values_videos" in names and "pixel_values" not in names:
        frames = size_of(config, "num_frames", "frames_per_clip", default=2)
        yield {"pixel_values_videos": whole[:, None].expand(-1, frames, -1, -1, -1).contiguous()}
        return
    sizes = {"image_sizes": torch.tensor([list(whole.shape[-2:])] * 2)} if "image_sizes" in names else {}
    several = {"pixel_values": whole[:, None].expand(-1, 2, *[-1] * (whole.ndim - 1)).contiguous(), **sizes}
    yield {"pixel_values": whole, **sizes}
    yield several
    yield {"pixel_values": whole[:, None].contiguous(), **sizes}
    if sizes:
        yield {"pixel_values": whole[:, None].expand(-1, 3, *[-1] * (whole.ndim - 1)).contiguous(), **sizes}


def _whole(config: Any, vision: Any, channels: int, make: torch.Generator) -> Tensor:
    side = size_of(vision, "image_size", "input_size", "img_size", default=64)
    height, width = side if isinstance(side, tuple) else (side, side)
    if config.model_type in VIDEO:
        frames = size_of(config, "num_frames", "frames_per_clip", default=2)
        return torch.randn(2, frames, channels, height, width, generator=make)
    return torch.randn(2, channels, height, width, generator=make)


def features(config: Any, make: torch.Generator) -> Tensor:
    parts = ("audio_config", "encoder_config", "audio_encoder_config", "speech_config")
    audio = next((a for n in parts if (a := getattr(config, n, None)) is not None), config)
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
