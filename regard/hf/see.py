"""see: one forward (or one generation) of a model on one input, watched, as a Trace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
import transformers as tf
from torch import Tensor

from regard.hf.attach import attach
from regard.hf.errors import Unsupported
from regard.hf.inputs import as_device, positions_of, tensors_for, written_positions_of
from regard.hf.load import Loaded, load
from regard.hf.media import lay_out
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
    max_new_tokens: int = 0,
    truncate: bool = False,
    keep: Literal["qk"] | None = None,
) -> Trace:
    """What a model attends to on an input, in one call.

    model: a transformers model, and its tokenizer, its image or its sound processor as `tokenizer`; or, with the input
    alone, the directory or hub name of both: regard.see("gpt2", "A text."). given: a text or a list of texts, a PIL
    image, (samples, rate) of a sound, or a mapping of ready tensors. An encoder-decoder reads `target`, or writes up to
    max_new_tokens (32 unless said otherwise) itself; a decoder continues the text by max_new_tokens, watched, too.
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
    max_new_tokens: int = 0,
    truncate: bool = False,
    layers: Sequence[int] | None = None,
    **watching: Any,
) -> Trace:
    """`see` for a model that `load` brought."""
    model = loaded.model
    inputs = as_device(tensors_for(loaded, given, truncate=truncate), model)
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), attach(model, layers=layers, tokenizer=loaded.tokenizer, **watching) as trace:
            _run(loaded, inputs, target, max_new_tokens)
    finally:
        model.train(training)
    problems = trace.made["problems"]
    if problems:
        raise Unsupported(problems[0])
    if not trace.layers:
        raise Unsupported(f"{type(model).__name__} has no attention to see on this input")
    lay_out(trace, loaded, given, inputs)
    if max_new_tokens and not model.config.is_encoder_decoder:
        _mark_prompt(trace, inputs)
    return trace


def _run(loaded: Loaded, inputs: dict[str, Tensor], target: str | None, max_new_tokens: int) -> None:
    model = loaded.model
    if not model.config.is_encoder_decoder:
        if target is not None:
            raise Unsupported(f"{type(model).__name__} has no decoder beside an encoder, so it takes no target")
        if max_new_tokens:
            _generate(model, inputs, max_new_tokens)
        else:
            model(**inputs)
        return
    if target is None and "decoder_input_ids" not in inputs:
        _generate(model, inputs, max_new_tokens or min(32, written_positions_of(model) or 32))
        return
    if target is not None:
        if loaded.tokenizer is None:
            raise Unsupported(f"{type(model).__name__} has no tokenizer for its target; give decoder_input_ids")
        labels = loaded.tokenizer(text_target=target, return_tensors="pt")["input_ids"].to(model.device)
        shift: Any = getattr(model, "prepare_decoder_input_ids_from_labels", None)
        start = torch.full_like(labels[:, :1], model.config.decoder_start_token_id or 0)
        shifted = torch.cat([start, labels[:, :-1]], 1) if shift is None else shift(labels)
        inputs = inputs | {"decoder_input_ids": shifted}
    model(**inputs)


def _generate(model: tf.PreTrainedModel, inputs: dict[str, Tensor], max_new_tokens: int) -> None:
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
    generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False, num_beams=1, pad_token_id=pad)


def _mark_prompt(trace: Trace, inputs: dict[str, Tensor]) -> None:
    """Where the input ends and what was generated begins."""
    ids = inputs.get("input_ids")
    for name, tokens in trace.axes.items():
        if ids is not None and tokens.axis.ids is not None and tokens.axis.length >= ids.shape[1]:
            trace.axes[name] = replace(tokens, prompt=ids.shape[1])
