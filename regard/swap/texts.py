"""A text as blocks of tokens, all of one length, as a model is measured on it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from regard.errors import UserError
from regard.hf.inputs import positions_of
from regard.hf.load import Loaded
from regard.hf.plan import Plan
from regard.mechanism import Mechanism
from regard.parts.bands import Band

LONGEST = 1024  # tokens in a row, unless said otherwise or the model has fewer positions


def blocks_of(loaded: Loaded, text: str, context: int | None = None, most: int | None = None) -> Tensor:
    """int64 [blocks, context]: the text cut into blocks without overlap, the rest left out. most: blocks at most.

    context: tokens in a row, by default what the model has positions for, up to LONGEST, and no more than the text.
    Raises UserError for a text of fewer tokens than a block or two, and for a context beyond the model's positions.
    """
    if loaded.tokenizer is None:
        raise UserError(f"{type(loaded.model).__name__} has no tokenizer in its directory; add its tokenizer files")
    if not text.strip():
        raise UserError("the text is empty; give a file of some thousand words")
    ids = loaded.tokenizer(text, return_tensors="pt", verbose=False)["input_ids"][0]
    limit = positions_of(loaded.model)
    if context is not None and (context < 2 or (limit is not None and context > limit)):
        upto = "" if limit is None else f" to {limit}, its positions"
        raise UserError(f"a context of {context} tokens does not fit the model; give 2{upto}")
    length = min(len(ids), LONGEST if limit is None else min(limit, LONGEST)) if context is None else context
    if len(ids) < max(length, 8):
        raise UserError(
            f"the text has {len(ids)} tokens, and a context of {max(length, 8)} was to be filled; give more"
        )
    count = min(len(ids) // length, len(ids) if most is None else most)
    return ids[: count * length].reshape(count, length)


def check_window(plan: Plan, context: int) -> None:
    """Raise UserError where a window of the plan is no narrower than the context: it would hide nothing."""
    for attention in plan.attentions:
        widest = _widest(attention.mask) if isinstance(attention, Mechanism) else None
        if widest is not None and widest >= context:
            raise UserError(
                f"{attention.name} hides nothing of {context} tokens; give a longer text and context, or a narrower "
                "window"
            )


def _widest(mask: Any) -> int | None:
    """The number of tokens of the widest window in a mask, None without one."""
    if isinstance(mask, Band):
        return None if mask.before is None else mask.before + 1
    inner = [_widest(part) for part in vars(mask).values()] if hasattr(mask, "__dict__") else []
    return max((width for width in inner if width is not None), default=None)


def batch_like(model: torch.nn.Module, ids: Tensor) -> Tensor:
    """Token ids [1,T] where the model is."""
    return ids[None].to(next(model.parameters()).device)
