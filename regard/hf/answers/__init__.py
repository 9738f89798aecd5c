"""Answers: what the head of a model says, recognised from its class and config.

A head is a `Head` in any file of this folder and is found there; a new one is a new file.
"""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module

import transformers as tf

from regard.hf.answers.head import Head, Seen
from regard.seeing.answer import Answer

__all__ = ["Head", "Seen", "answers", "every", "head_of"]


@cache
def every() -> tuple[Head, ...]:
    """Every head of this folder, in the order in which they are asked whether a model is theirs."""
    kept: dict[str, Head] = {}
    for file in pkgutil.iter_modules(__path__):
        module = import_module(f"{__name__}.{file.name}")
        kept |= {value.task: value for value in vars(module).values() if isinstance(value, Head)}
    return tuple(sorted(kept.values(), key=lambda head: (head.order, head.task)))


def head_of(model: tf.PreTrainedModel) -> Head | None:
    """The head of a model; None where none is known."""
    return next((head for head in every() if head.fits(model)), None)


def answers(seen: Seen) -> list[Answer]:
    """An answer for each sequence of a forward or a generation that has run."""
    head = head_of(seen.model)
    if head is None:
        note = f"{type(seen.model).__name__} has no head whose answer is known; its attention is shown alone"
        return [Answer(note=note)] * seen.batch
    return head.answers(seen)
