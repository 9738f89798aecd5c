"""Running a model on an input: one forward, or a generation whose steps are noted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import transformers as tf
from torch import Tensor

from regard.hf.errors import Unsupported
from regard.hf.inputs import positions_of, written_positions_of
from regard.hf.load import Loaded

NOTED = 5  # likeliest tokens of a step
USUAL_LENGTH = 32  # tokens that an encoder–decoder writes unless said otherwise


@dataclass(frozen=True, eq=False)
class Written:
    """One step of a generation: the likeliest tokens [B,5] and their probabilities, best first."""

    ids: Tensor
    chances: Tensor


@dataclass(frozen=True, eq=False)
class Ran:
    """What a run gave. output: of a forward, None of a generation; steps: of a generation; ends: tokens that end a
    text; labels: the tokens [1,T] of a target that was read."""

    output: Any = None
    steps: list[Written] = field(default_factory=list)
    ends: frozenset[int] = frozenset()
    labels: Tensor | None = None


class Notes(tf.LogitsProcessor):
    """Notes what each step could write; the scores go on as they came. Greedy search writes the likeliest."""

    def __init__(self) -> None:
        self.steps: list[Written] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """scores [B,V] -> the same."""
        best = scores.detach().float().softmax(-1).topk(min(NOTED, scores.shape[-1]))
        self.steps.append(Written(best.indices.cpu(), best.values.cpu()))
        return scores


def run(loaded: Loaded, inputs: dict[str, Tensor], target: str | None, max_new_tokens: int) -> Ran:
    """One forward; or a greedy generation, where an encoder–decoder has no target or new tokens are asked for."""
    model = loaded.model
    ends = _ends(model)
    if not model.config.is_encoder_decoder:
        if target is not None:
            raise Unsupported(f"{type(model).__name__} has no decoder beside an encoder, so it takes no target")
        if max_new_tokens:
            return Ran(steps=_generate(model, inputs, max_new_tokens), ends=ends)
        return Ran(model(**inputs))
    if target is None and "decoder_input_ids" not in inputs:
        if not max_new_tokens and not model.can_generate() and hasattr(model.config, "id2label"):
            return Ran(model(**inputs), ends=ends)
        length = max_new_tokens or min(USUAL_LENGTH, written_positions_of(model) or USUAL_LENGTH)
        return Ran(steps=_generate(model, inputs, length), ends=ends)
    labels = None if target is None else _labels(loaded, target)
    if labels is not None:
        shift: Any = getattr(model, "prepare_decoder_input_ids_from_labels", None)
        start = torch.full_like(labels[:, :1], model.config.decoder_start_token_id or 0)
        shifted = torch.cat([start, labels[:, :-1]], 1) if shift is None else shift(labels)
        inputs = inputs | {"decoder_input_ids": shifted}
    return Ran(model(**inputs), ends=ends, labels=labels)


def _labels(loaded: Loaded, target: str) -> Tensor:
    model = loaded.model
    if loaded.tokenizer is None:
        raise Unsupported(f"{type(model).__name__} has no tokenizer for its target; give decoder_input_ids")
    labels: Tensor = loaded.tokenizer(text_target=target, return_tensors="pt")["input_ids"]
    return labels.to(model.device)


def _ends(model: tf.PreTrainedModel) -> frozenset[int]:
    config = model.generation_config if model.can_generate() else model.config
    end = getattr(config, "eos_token_id", None)
    return frozenset(end if isinstance(end, list) else () if end is None else (end,))


def _generate(model: tf.PreTrainedModel, inputs: dict[str, Tensor], max_new_tokens: int) -> list[Written]:
    if not hasattr(model, "generate") or not model.can_generate():
        raise Unsupported(f"{type(model).__name__} cannot generate; see an input without new tokens")
    if max_new_tokens < 0:
        raise Unsupported(f"a model writes at least 0 new tokens, got max_new_tokens={max_new_tokens}")
    beside = model.config.is_encoder_decoder
    limit = written_positions_of(model) if beside else positions_of(model)
    length = inputs["input_ids"].shape[1] if "input_ids" in inputs and not beside else 0
    if limit is not None and length + max_new_tokens > limit:
        raise Unsupported(f"{length} tokens and {max_new_tokens} new ones exceed the model's {limit} positions")
    pad = model.generation_config.pad_token_id
    pad = model.generation_config.eos_token_id if pad is None else pad
    pad = pad[0] if isinstance(pad, list) else pad
    generate: Any = model.generate
    notes = Notes()
    processors = tf.LogitsProcessorList([notes])
    chosen = {"do_sample": False, "num_beams": 1, "pad_token_id": pad}
    generate(**inputs, max_new_tokens=max_new_tokens, logits_processor=processors, **chosen)
    return notes.steps
