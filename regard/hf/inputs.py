"""Inputs of a model: texts, images and sound, made into tensors."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
import transformers as tf
from torch import Tensor

from regard.hf.calls import Unsupported
from regard.hf.load import Loaded


def tensors_for(
    loaded: Loaded, given: Any, *, truncate: bool = False, question: str | None = None
) -> dict[str, Tensor]:
    """The model's inputs for a text (with a question on it), an image or a sound.

    Raises Unsupported where the model takes no such input, and for an empty text or one longer than the model's
    positions (truncate=True cuts it there).
    """
    if question is not None:
        return _pair_tensors(loaded, question, given)
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


def _pair_tensors(loaded: Loaded, question: str, text: Any) -> dict[str, Tensor]:
    """A question and the text that it asks about, as one sequence of two segments."""
    name = type(loaded.model).__name__
    if not hasattr(loaded.model, "qa_outputs") and not name.endswith("ForQuestionAnswering"):
        raise Unsupported(f"{name} does not answer questions on a text; leave --question out")
    if not isinstance(text, str) or not text.strip():
        raise Unsupported("a question is asked about a text; give the text as INPUT")
    if not question.strip():
        raise Unsupported("the question is empty; give at least one word")
    if loaded.tokenizer is None:
        raise Unsupported(f"{name} has no tokenizer in its directory; add its tokenizer files, or give tensors")
    found = loaded.tokenizer(question, text, return_tensors="pt")
    limit, length = positions_of(loaded.model), found["input_ids"].shape[1]
    if limit is not None and length > limit:
        raise Unsupported(f"question and text have {length} tokens and {name} has positions for {limit}; shorten them")
    return {key: value for key, value in found.items() if key != "attention_mask" and _takes(loaded.model, key)}


def _sound_tensors(loaded: Loaded, samples: Any, rate: int) -> dict[str, Tensor]:
    name = type(loaded.model).__name__
    if loaded.processor is None or loaded.model.main_input_name not in ("input_features", "input_values"):
        raise Unsupported(f"{name} takes no sound (or lacks a preprocessor_config.json); give it a text")
    return dict(loaded.processor(samples, sampling_rate=rate, return_tensors="pt"))


def _takes(model: tf.PreTrainedModel, name: str) -> bool:
    return name == model.main_input_name or name in inspect.signature(model.forward).parameters


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
