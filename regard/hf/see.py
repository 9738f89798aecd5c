"""see: one forward (or one generation) of a model on one input, watched, as a Trace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
import transformers as tf
from torch import Tensor

from regard.hf.answers import Seen, answers
from regard.hf.answers.times import timed
from regard.hf.attach import attach
from regard.hf.errors import Unsupported
from regard.hf.inputs import as_device, tensors_for
from regard.hf.load import Loaded, load
from regard.hf.losses import token_losses
from regard.hf.media import lay_out
from regard.hf.running import run
from regard.hf.sound import fitted
from regard.seeing.answer import Answer
from regard.seeing.trace import Trace
from regard.statistic import Statistic


def see(
    model: tf.PreTrainedModel | str | Path,
    tokenizer: Any = None,
    given: Any = None,
    *,
    watch: Sequence[Statistic] | None = None,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    backend: str = "model",
    target: str | None = None,
    question: str | None = None,
    max_new_tokens: int = 0,
    truncate: bool = False,
    keep: Literal["qk"] | None = None,
) -> Trace:
    """What a model attends to on an input, in one call.

    model: a transformers model, and its tokenizer, its image or its sound processor as `tokenizer`; or, with the input
    alone, the directory or hub name of both: regard.see("gpt2", "A text."). given: a text or a list of texts, a PIL
    image, (samples, rate) of a sound, or a mapping of ready tensors. An encoder-decoder reads `target`, or writes up to
    max_new_tokens (32 unless said otherwise) itself; a decoder continues the text by max_new_tokens, watched, too.
    `question` asks a model that finds its answers in the text. What the model's head says is in the Trace's `answer`.
    Other keywords as for `attach`. Raises Unsupported for what cannot be seen exactly: models outside the seam,
    inputs that do not fit, NaN weights, a token that is not padding and may attend to nothing.
    """
    loaded, given = _brought(model, tokenizer, given)
    return look(
        loaded,
        given,
        watch=watch,
        layers=layers,
        heads=heads,
        backend=backend,
        target=target,
        question=question,
        max_new_tokens=max_new_tokens,
        truncate=truncate,
        keep=keep,
    )


def _brought(model: Any, tokenizer: Any, given: Any) -> tuple[Loaded, Any]:
    """The model with what turns inputs into its tensors, and the input."""
    if isinstance(model, str | Path):
        if tokenizer is not None and given is not None:
            raise Unsupported(f'{model} brings its own tokenizer; write regard.see("{model}", input)')
        return load(model), tokenizer if given is None else given
    if not isinstance(model, tf.PreTrainedModel):
        raise Unsupported(
            f"a model is a transformers model, a directory or a hub name, not {type(model).__name__}; "
            "regard.load() gives the embedded one as .model and .tokenizer"
        )
    is_tokenizer = isinstance(tokenizer, tf.PreTrainedTokenizerBase)
    words = tokenizer if is_tokenizer else getattr(tokenizer, "tokenizer", None)
    return Loaded(model, words, None if is_tokenizer else tokenizer), given


def look(
    loaded: Loaded,
    given: Any,
    *,
    target: str | None = None,
    question: str | None = None,
    max_new_tokens: int = 0,
    truncate: bool = False,
    layers: Sequence[int] | None = None,
    **watching: Any,
) -> Trace:
    """`see` for a model that `load` brought."""
    model = loaded.model
    given, notes = fitted(loaded, given, truncate)
    inputs = as_device(tensors_for(loaded, given, truncate=truncate, question=question), model)
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), attach(model, layers=layers, tokenizer=loaded.tokenizer, **watching) as trace:
            ran = run(loaded, inputs, target, max_new_tokens)
    finally:
        model.train(training)
    problems = trace.made["problems"]
    if problems:
        raise Unsupported(problems[0])
    if not trace.layers:
        raise Unsupported(f"{type(model).__name__} has no attention to see on this input")
    trace.made["notes"] = notes
    lay_out(trace, loaded, given, inputs)
    if max_new_tokens and not model.config.is_encoder_decoder:
        _mark_prompt(trace, inputs)
    _note_losses(trace, model, inputs, ran.output)
    trace.answers = _answer(trace, Seen(loaded, given, inputs, ran, question))
    return trace


def _note_losses(trace: Trace, model: Any, inputs: dict[str, Any], output: Any) -> None:
    """The loss of each token, on the axis of a causal model's text."""
    losses = None if output is None else token_losses(model, inputs, output)
    for name, tokens in trace.axes.items():
        if losses is not None and tokens.kind == "text" and tokens.axis.length == losses.shape[1]:
            trace.axes[name] = replace(tokens, loss=losses)


def answer(
    loaded: Loaded,
    given: Any,
    *,
    question: str | None = None,
    target: str | None = None,
    max_new_tokens: int = 0,
    truncate: bool = False,
) -> Answer:
    """What a model answers to one input, without a look at its attention."""
    model = loaded.model
    given, _ = fitted(loaded, given, truncate)
    inputs = as_device(tensors_for(loaded, given, truncate=truncate, question=question), model)
    with torch.no_grad():
        ran = run(loaded, inputs, target, max_new_tokens)
    return answers(Seen(loaded, given, inputs, ran, question))[0]


def _answer(trace: Trace, seen: Seen) -> list[Answer]:
    """The answers, their rows on the axis of the layer that stands nearest to the head."""
    model = seen.model
    near = [layer for layer in trace.layers if layer.kind == "cross"] or [
        layer for layer in trace.layers if layer.stack == "decoder" or not model.config.is_encoder_decoder
    ]
    axis = near[-1].query_axis if near else None
    rows = trace.axes[axis].axis.length if axis is not None else None
    return timed(trace, model, [each.on(axis) for each in answers(replace(seen, rows=rows))])


def _mark_prompt(trace: Trace, inputs: dict[str, Tensor]) -> None:
    """Where the input ends and what was generated begins."""
    ids = inputs.get("input_ids")
    for name, tokens in trace.axes.items():
        if ids is not None and tokens.axis.ids is not None and tokens.axis.length >= ids.shape[1]:
            trace.axes[name] = replace(tokens, prompt=ids.shape[1])
