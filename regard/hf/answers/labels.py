"""Labels with their probabilities: of texts, pictures and sound."""

from __future__ import annotations

from typing import Any

import torch
import transformers as tf
from torch import Tensor

from regard.hf.answers.head import Head, Seen, is_one_of
from regard.hf.errors import Unsupported
from regard.seeing.answer import Answer, Choice, Piece


def label_of(model: tf.PreTrainedModel, number: int) -> str:
    """A label's name. Raises Unsupported where the config has none for it."""
    names: dict[Any, str] = dict(model.config.id2label or {})
    name = names.get(number, names.get(str(number)))
    if name is None:
        raise Unsupported(
            f"the config of {type(model).__name__} names no label {number} (it names {len(names)}); "
            "add it to id2label in config.json"
        )
    return str(name)


def chances_of(model: tf.PreTrainedModel, logits: Tensor) -> Tensor | None:
    """Probabilities of labels [..., L]: softmax where one of several holds, a sigmoid each where several may or there
    is only one; None for a regression, whose numbers are no probabilities."""
    kind = model.config.problem_type
    if kind == "regression":
        return None
    if kind == "multi_label_classification" or logits.shape[-1] == 1:
        return torch.sigmoid(logits)
    return torch.softmax(logits, -1)


def labelled(seen: Seen, logits: Tensor, task: str, slot: int | None) -> Answer:
    """The answer of one sequence's logits [L]; slot: the row that the head reads, None where it reads all."""
    model = seen.model
    chances = chances_of(model, logits)
    order = (logits if chances is None else chances).argsort(descending=True, stable=True).tolist()
    names = {number: label_of(model, number) for number in order}
    if chances is None:
        values = tuple(Choice(names[number], None, float(logits[number])) for number in order)
        text = ", ".join(f"{choice.text} {choice.value:.3f}" for choice in values)
        return Answer(task, text, None, values, (Piece(text, slot),))
    choices = tuple(Choice(names[number], float(chances[number])) for number in order)
    first = choices[0]
    return Answer(task, first.text, first.probability, choices, (Piece(first.text, slot, first.probability),))


def _texts(seen: Seen) -> list[Answer]:
    return [labelled(seen, logits, TEXT.task, _read_row(seen, row)) for row, logits in enumerate(seen.logits)]


def _read_row(seen: Seen, row: int) -> int | None:
    """Decoders read the last token, encoders the first; regard's pooling has a single row."""
    config = seen.model.config
    if "input_ids" not in seen.inputs:
        return None
    if config.is_encoder_decoder or _is_decoder(seen.model):
        return seen.last(row)
    return 0


def _is_decoder(model: tf.PreTrainedModel) -> bool:
    return type(model.config) in tf.AutoModelForCausalLM._model_mapping and (
        getattr(model.config, "is_decoder", False) or type(model.config) not in tf.AutoModelForMaskedLM._model_mapping
    )


def _pictures(seen: Seen) -> list[Answer]:
    embeddings = [name for name, _ in seen.model.named_parameters() if name.endswith("cls_token")]
    return [labelled(seen, logits, PICTURE.task, 0 if embeddings else None) for logits in seen.logits]


def _sounds(seen: Seen) -> list[Answer]:
    return [labelled(seen, logits, SOUND.task, None) for logits in seen.logits]


TEXT = Head("text-classification", 1, is_one_of("AutoModelForSequenceClassification"), _texts)
PICTURE = Head("image-classification", 1, is_one_of("AutoModelForImageClassification"), _pictures)
SOUND = Head("audio-classification", 0, is_one_of("AutoModelForAudioClassification"), _sounds)
