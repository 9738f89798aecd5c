"""Text that a model writes: the next token, a continuation, a translation, a caption, a transcript."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import transformers as tf

from regard.hf.answers.head import Head, Seen, likeliest, token_choices
from regard.hf.pieces import texts
from regard.seeing.answer import Answer, Piece


def _continued(seen: Seen) -> list[Answer]:
    if seen.ran.steps:
        return [_of_steps(seen, row, "text-generation") for row in range(seen.batch)]
    answers = []
    for row in range(seen.batch):
        slot = seen.last(row)
        choices = likeliest(seen, seen.logits[row, slot])
        piece = Piece(choices[0].text, slot, choices[0].probability)
        answers.append(Answer("text-generation", choices[0].text, choices[0].probability, choices, (piece,)))
    return answers


def _of_steps(seen: Seen, row: int, task: str) -> Answer:
    """What was written a token at a time, to its end token, which counts for the confidence alone."""
    ends = seen.ran.ends
    steps = seen.ran.steps
    ids = [int(step.ids[row, 0]) for step in steps]
    chances = [float(step.chances[row, 0]) for step in steps]
    size = next((n for n, number in enumerate(ids) if number in ends), len(ids))
    first = 0 if seen.rows is None else seen.rows - len(steps)
    written = chances[: size + 1]
    pieces = tuple(
        Piece(text, first + n, chance)
        for n, (text, chance) in enumerate(zip(texts(seen.loaded.tokenizer, ids[:size]), chances[:size], strict=True))
    )
    choices = token_choices(seen, steps[0].ids[row].tolist(), steps[0].chances[row].tolist())
    return Answer(task, seen.decode(ids[:size]).strip(), geometric_mean(written), choices, pieces)


def geometric_mean(chances: list[float]) -> float | None:
    """exp(mean log p); None of nothing."""
    if not chances:
        return None
    return math.exp(math.fsum(math.log(max(chance, 1e-30)) for chance in chances) / len(chances))


def _beside(task: str) -> Callable[[Seen], list[Answer]]:
    """What a decoder beside an encoder wrote, or how likely it holds the target that it read."""

    def answers(seen: Seen) -> list[Answer]:
        if seen.ran.steps:
            return [_of_steps(seen, row, task) for row in range(seen.batch)]
        labels = seen.ran.labels
        if labels is None:
            return [Answer(task, note="decoder_input_ids came with the input, so nothing was written")] * seen.batch
        ends, chances = seen.ran.ends, seen.logits.softmax(-1)
        ids = [number for number in labels[0].tolist() if number not in ends]
        each = chances[0, torch.arange(len(ids)), torch.tensor(ids, dtype=torch.long)].tolist()
        named = texts(seen.loaded.tokenizer, ids)
        pieces = tuple(Piece(text, n, chance) for n, (text, chance) in enumerate(zip(named, each, strict=True)))
        note = "the target was given; its confidence is the model's"
        return [Answer(task, seen.decode(ids), geometric_mean(each), (), pieces, note=note)]

    return answers


def _writes(*inputs: str) -> Callable[[tf.PreTrainedModel], bool]:
    """Whether a model is an encoder–decoder that reads one of these and can generate."""

    def fits(model: tf.PreTrainedModel) -> bool:
        return bool(model.config.is_encoder_decoder) and model.can_generate() and model.main_input_name in inputs

    return fits


def _continues(model: tf.PreTrainedModel) -> bool:
    return not model.config.is_encoder_decoder and model.can_generate()


CAUSAL = Head("text-generation", 3, _continues, _continued)
TEXT = Head("text2text-generation", 3, _writes("input_ids"), _beside("text2text-generation"))
PICTURE = Head("image-to-text", 3, _writes("pixel_values", "flattened_patches"), _beside("image-to-text"))
SPEECH = Head(
    "automatic-speech-recognition",
    3,
    _writes("input_features", "input_values"),
    _beside("automatic-speech-recognition"),
)
