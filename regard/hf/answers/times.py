"""Begin and end in seconds of the words of a transcript."""

from __future__ import annotations

from dataclasses import replace

import torch
import transformers as tf

from regard.seeing.answer import Answer
from regard.seeing.timing import heard, joined, warped
from regard.seeing.trace import Layer, Trace, TraceError


def timed(trace: Trace, model: tf.PreTrainedModel, answers: list[Answer]) -> list[Answer]:
    """Answers whose pieces were said in a sound, with their times; others as they are.

    The frames of a frame-by-frame transcript are its times. What a decoder wrote is warped along its cross-attention,
    by the heads that the generation config names (Whisper's alignment_heads), whose words follow each other without a
    gap; else by those of the later half of its layers, and a word keeps the frames that it looks at. Without exact
    weights there are no times.
    """
    return [_one(trace, model, answer, batch) for batch, answer in enumerate(answers)]


def _one(trace: Trace, model: tf.PreTrainedModel, answer: Answer, batch: int) -> Answer:
    slots = answer.rows
    heads = _heads(trace, model, answer.axis)
    if not slots or answer.axis is None:
        return answer
    if trace.axes[answer.axis].seconds is not None:
        spans, key = [(slot, slot) for slot in slots], answer.axis
    elif heads and trace.axes[heads[0][0].key_axis].seconds is not None:
        key = heads[0][0].key_axis
        try:
            rows = [trace.weights(layer, head, batch=batch) for layer, head in heads]
        except TraceError:
            return answer
        looked = [weights[slots] for weights in rows]
        spans = warped(joined(looked))
        if not named(model):
            spans = heard(torch.stack(looked).mean(0), spans)
    else:
        return answer
    tokens = trace.axes[key]
    each = (tokens.seconds or 0.0) / max(tokens.axis.length, 1)
    times = {slot: (first * each, (last + 1) * each) for slot, (first, last) in zip(slots, spans, strict=True)}
    pieces = (
        piece if piece.slot is None else replace(piece, begin=times[piece.slot][0], end=times[piece.slot][1])
        for piece in answer.pieces
    )
    return replace(answer, pieces=tuple(pieces))


def named(model: tf.PreTrainedModel) -> set[tuple[int, int]]:
    """The (layer, head) that the generation config names for alignment."""
    heads = getattr(getattr(model, "generation_config", None), "alignment_heads", None) or ()
    return {(int(layer), int(head)) for layer, head in heads}


def _heads(trace: Trace, model: tf.PreTrainedModel, axis: str | None) -> list[tuple[Layer, int]]:
    cross = [layer for layer in trace.layers if layer.kind == "cross" and layer.query_axis == axis]
    found = [(layer, head) for layer in cross for head in layer.heads if (layer.index, head) in named(model)]
    return found or [(layer, head) for layer in cross[len(cross) // 2 :] for head in layer.heads]
