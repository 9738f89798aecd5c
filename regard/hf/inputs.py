"""Inputs of a model: what a command line names, read from text, images and sound, and made into tensors."""

from __future__ import annotations

import inspect
import wave
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as tf
from torch import Tensor

from regard.hf.calls import Unsupported
from regard.hf.load import Loaded

IMAGES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif"})
MAX_INPUT_BYTES = 256 << 20


def read_input(given: str, stdin: Any = None) -> Any:
    """What an INPUT of the command line names: a text, @file, - (standard input), an image or a wav file.

    Returns a str, a PIL image or (samples float32, rate). Raises Unsupported for files that cannot be read.
    """
    if given == "-":
        try:
            return stdin.read()
        except UnicodeDecodeError:
            raise Unsupported("standard input is not UTF-8 text; convert it first") from None
    path = Path(given.removeprefix("@"))
    suffix = path.suffix.lower()
    if not given.startswith("@") and suffix not in IMAGES | {".wav"}:
        return given
    try:
        if path.stat().st_size > MAX_INPUT_BYTES:
            raise Unsupported(f"{path} is larger than {MAX_INPUT_BYTES >> 20} MiB; give a smaller file")
        if suffix in IMAGES:
            return _image(path)
        return _sound(path) if suffix == ".wav" else path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise Unsupported(f"there is no file {path}; give a text, @file, -, an image or a wav file") from None
    except UnicodeDecodeError:
        raise Unsupported(f"{path} is not UTF-8 text; convert it first") from None
    except OSError as error:
        raise Unsupported(f"cannot read {path}: {error.strerror or error}") from None


def _image(path: Path) -> Any:
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise Unsupported("reading an image needs pillow: pip install 'regard[hf]'") from None
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, ValueError):
        raise Unsupported(f"{path} is not an image that can be read; give a PNG or JPEG") from None


def _sound(path: Path) -> tuple[Any, int]:
    try:
        with wave.open(str(path)) as file:
            width, channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
            raw = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        reason = str(error) or "cut short"
        raise Unsupported(f"{path} is not a PCM wav file ({reason}); convert it to 16-bit PCM") from None
    if width not in (2, 4):
        raise Unsupported(f"{path} has {8 * width}-bit samples; convert it to 16-bit PCM")
    raw = raw[: len(raw) - len(raw) % (width * channels)]
    if not raw:
        raise Unsupported(f"{path} holds no sound; give a longer one")
    samples = np.frombuffer(raw, dtype=np.int16 if width == 2 else np.int32).astype(np.float32)
    return samples.reshape(-1, channels).mean(1) / float(1 << (8 * width - 1)), rate


def tensors_for(loaded: Loaded, given: Any, *, truncate: bool = False) -> dict[str, Tensor]:
    """The model's inputs for a text, an image or a sound. Raises Unsupported where the model takes no such thing,
    and for an empty text or one longer than the model's positions (truncate=True cuts it there)."""
    if isinstance(given, Mapping):
        return {name: value for name, value in given.items() if isinstance(value, Tensor)}
    if given is None or isinstance(given, bytes | int | float):
        raise Unsupported(f"an input is a text, an image, a (samples, rate) of sound or tensors, not {given!r:.40}")
    if isinstance(given, list) and not all(isinstance(part, str) for part in given):
        raise Unsupported("a list of inputs holds texts; give token ids as {'input_ids': tensor}")
    if isinstance(given, str | list):
        return _text_tensors(loaded, given, truncate)
    if isinstance(given, tuple):
        return _sound_tensors(loaded, *given)
    name = type(loaded.model).__name__
    if loaded.processor is None or not _takes(loaded.model, "pixel_values"):
        raise Unsupported(f"{name} takes no image (or lacks a preprocessor_config.json); give it a text")
    found = dict(loaded.processor(images=given, return_tensors="pt"))
    if _takes(loaded.model, "input_ids") and loaded.tokenizer is not None:
        found |= _text_tensors(loaded, "a photo", truncate)
    return found


def _text_tensors(loaded: Loaded, text: str | list[str], truncate: bool) -> dict[str, Tensor]:
    name = type(loaded.model).__name__
    if loaded.tokenizer is None:
        raise Unsupported(f"{name} has no tokenizer in its directory; add its tokenizer files, or give tensors")
    if not _takes(loaded.model, "input_ids"):
        raise Unsupported(f"{name} takes no text; give it an image or a wav file")
    texts = [text] if isinstance(text, str) else text
    if not texts or not all(part.strip() for part in texts):
        raise Unsupported("the text is empty; give at least one word")
    if any("\ud800" <= character <= "\udfff" for part in texts for character in part):
        raise Unsupported("the text holds bytes that are not UTF-8; convert it first")
    if len(texts) > 1 and loaded.tokenizer.pad_token is None:
        raise Unsupported(f"the tokenizer of {name} has no padding token, so give one text at a time")
    limit = positions_of(loaded.model)
    cut = {"truncation": True, "max_length": limit} if truncate and limit is not None else {}
    several = len(texts) > 1
    found = loaded.tokenizer(texts, return_tensors="pt", padding=several, return_token_type_ids=False, **cut)
    length = found["input_ids"].shape[1]
    if length == 0:
        raise Unsupported("the text has no tokens; give at least one word")
    if limit is not None and length > limit:
        raise Unsupported(
            f"the text has {length} tokens and {name} has positions for {limit}; give a shorter text, or --truncate"
        )
    kept = {key: value for key, value in found.items() if key in ("input_ids", "attention_mask")}
    if len(texts) == 1:
        kept.pop("attention_mask", None)
    return kept


def _sound_tensors(loaded: Loaded, samples: Any, rate: int) -> dict[str, Tensor]:
    name = type(loaded.model).__name__
    if loaded.processor is None or loaded.model.main_input_name not in ("input_features", "input_values"):
        raise Unsupported(f"{name} takes no sound (or lacks a preprocessor_config.json); give it a text")
    wanted = loaded.processor.sampling_rate
    if rate != wanted:
        raise Unsupported(f"the sound has {rate} samples a second and {name} takes {wanted}; resample it first")
    return dict(loaded.processor(samples, sampling_rate=rate, return_tensors="pt"))


def _takes(model: tf.PreTrainedModel, name: str) -> bool:
    return name in inspect.signature(model.forward).parameters


def positions_of(model: tf.PreTrainedModel) -> int | None:
    """How many positions a text model has, or None where nothing limits them."""
    config = model.config.get_text_config()
    for name in ("max_position_embeddings", "n_positions", "max_source_positions"):
        limit = getattr(config, name, None)
        if isinstance(limit, int) and 0 < limit < 1 << 24:
            # RoBERTa's family keeps the first positions for padding
            offset = config.pad_token_id + 1 if "roberta" in config.model_type else 0
            return limit - offset if config.model_type not in ("t5", "mt5", "umt5") else None
    return None


def written_positions_of(model: tf.PreTrainedModel) -> int | None:
    """How many tokens a model can write from nothing: for a decoder, less those it begins with."""
    limit = getattr(model.config, "max_target_positions", None)
    return positions_of(model) if limit is None else limit - 4


def as_device(inputs: Mapping[str, Tensor], model: torch.nn.Module) -> dict[str, Tensor]:
    """The inputs where the model is, floats in its type."""
    first = next(model.parameters())
    return {
        name: value.to(first.device, first.dtype if value.is_floating_point() else value.dtype)
        for name, value in inputs.items()
    }
