"""compare: a model's own attention and candidates for its place, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers as tf

from regard.errors import UserError
from regard.hf.load import Loaded, load
from regard.hf.plan import NOTHING, Plan, plan_of
from regard.protocol import Attention
from regard.swap.cost import OWN, costs
from regard.swap.quality import qualities
from regard.swap.records import Comparison, Row
from regard.swap.speed import speed
from regard.swap.texts import blocks_of, check_window

NEW_TOKENS = 16


def compare(
    model: tf.PreTrainedModel | Loaded | str | Path | None,
    mechanisms: Sequence[Attention | Plan | str],
    text: str,
    *,
    tokenizer: Any = None,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    context: int | None = None,
    blocks: int | None = None,
    backend: str = "model",
    time: bool = True,
    report: Callable[[str], None] = lambda line: None,
) -> Comparison:
    """The model's own attention and each mechanism in its place: quality, pairs read, speed and memory, as records.

    model: a transformers model with its tokenizer, what regard.load gave, a directory or hub name, None for the
    embedded one. mechanisms: records, text forms ("window(256) | sinks(4)") or plans ("0,1: causal; *: window(256)").
    layers, heads: where they go, by default everywhere. text: what is predicted, in blocks of `context` tokens (by
    default as many as fit, up to 1,024), `blocks` of them at most. time=False measures no speed.

    Raises UserError for what cannot be compared: a text that is too short, a layer that is not there, a mechanism that
    does not fit the model.
    """
    if not mechanisms:
        raise UserError("a comparison needs a mechanism to put in; give one, such as 'window(256) | sinks(4)'")
    loaded = loaded_of(model, tokenizer)
    plans = [plan_of(each, layers, heads) for each in mechanisms]
    ids = blocks_of(loaded, text, context, blocks)
    for plan in plans:
        check_window(plan, ids.shape[1])
    training = loaded.model.training
    loaded.model.eval()
    try:
        rows = _rows(loaded.model, plans, ids, backend, time, report)
    finally:
        loaded.model.train(training)
    return described(loaded, ids, rows)


def described(loaded: Loaded, ids: torch.Tensor, rows: tuple[Row, ...]) -> Comparison:
    """The rows of blocks [N,T] of token ids with what they were measured on."""
    name = Path(loaded.model.config.name_or_path or "").name or type(loaded.model).__name__
    made = {"threads": torch.get_num_threads(), "dtype": str(loaded.model.dtype).removeprefix("torch.")}
    return Comparison(name, ids.shape[0] * (ids.shape[1] - 1), ids.shape[1], rows, made)


def _rows(
    model: tf.PreTrainedModel,
    plans: Sequence[Plan],
    blocks: torch.Tensor,
    backend: str,
    time: bool,
    report: Callable[[str], None],
) -> tuple[Row, ...]:
    report(f"predicting {blocks.numel()} tokens with {len(plans) + 1} attentions")
    quality = qualities(model, [NOTHING, *plans], blocks, backend)
    cost = costs(model, [OWN, *plans], blocks[0])
    rows = []
    for plan, good, dear in zip([NOTHING, *plans], quality, cost, strict=True):
        name = "own" if plan is NOTHING else str(plan)
        report(f"timing {name}" if time else f"{name}: {good.bits_per_token:.3f} bits per token")
        new_tokens = min(NEW_TOKENS, blocks.shape[1] - 1)
        rows.append(Row(name, good, dear, speed(model, plan, blocks[0], new_tokens, backend) if time else None))
    return tuple(rows)


def loaded_of(model: Any, tokenizer: Any) -> Loaded:
    """A model with its tokenizer, loaded where it was named."""
    if isinstance(model, Loaded):
        return model
    if isinstance(model, tf.PreTrainedModel):
        return Loaded(model, tokenizer)
    return load(model)
