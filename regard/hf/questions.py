"""Which mask answers which question: what a model's masks mean, while one forward runs."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor

from regard.core.ranges import Ranges
from regard.hf.masks import ModelMask

MOST = 256  # questions kept, where a model asks for masks and never runs


class Questions:
    """The masks that an attached model was given in this forward, each with the question that it answers.

    A mask is known again only as the very object, unchanged. One that the model computed from it is another mask, and
    is read cell by cell.
    """

    def __init__(self) -> None:
        self._by_mask: dict[int, tuple[Any, int, ModelMask]] = {}
        self._without_mask: list[ModelMask] = []
        self._ranges: dict[Hashable, Ranges] = {}

    def clear(self) -> None:
        """Forget all: a forward is over."""
        self._by_mask.clear()
        self._without_mask.clear()
        self._ranges.clear()

    def ranges(self, rule: Hashable, make: Callable[[], Ranges]) -> Ranges:
        """What a rule lets each query see, made for the first layer of a forward and shared by the others."""
        if rule not in self._ranges:
            self._ranges[rule] = make()
        return self._ranges[rule]

    def note(self, question: ModelMask) -> Any:
        """Answer a question as the model's implementation does, and remember the answer."""
        answer = question.own()
        question.forget_own()
        if len(self._by_mask) + len(self._without_mask) >= MOST:
            self.clear()
        if answer is None:
            self._without_mask.append(question)
        elif isinstance(answer, Tensor):
            answer = _apart(answer, question.question.get("attention_mask"))
            self._by_mask[id(answer)] = (weakref.ref(answer), answer._version, question)
        else:
            self._by_mask[id(answer)] = (lambda answer=answer: answer, 0, question)
        return answer

    def mark(self, mask: Any) -> int | None:
        """What tells later what a call's mask meant now, to be handed to `of`; None where that must be asked now."""
        if mask is None:
            return len(self._without_mask)
        known = self._by_mask.get(id(mask))
        if known is None or (isinstance(mask, Tensor) and mask._version != known[1]):
            return None
        return len(self._by_mask)

    def of(
        self, mask: Any, num_queries: int, num_keys: int, window: int | None, mark: int | None = None
    ) -> tuple[ModelMask | None, bool]:
        """(the question that this mask answers, whether that is certain). mark: when the call was made, if not now.

        It is not certain for a mask that the model made from another: a question of the same numbers of queries and
        keys then tells where the tokens lie and which are padding, and not what they may see. A call without a mask
        answers a question with the same window, where there are several.
        """
        if isinstance(mask, ModelMask):
            return mask, True
        same, version, question = self._by_mask.get(id(mask), (None, 0, None))
        is_known = mask is not None and same is not None and same() is mask
        if is_known and (mark is not None or not (isinstance(mask, Tensor) and mask._version != version)):
            return question, True
        asked = self._without_mask[:mark] if mask is None else [question for _, _, question in self._by_mask.values()]
        fitting = [q for q in asked if (q.num_queries, q.num_keys) == (num_queries, num_keys)]
        fitting = [q for q in fitting if (q.question.get("local_size") or None) == window] or fitting
        agree = len({(q.query_offset, q.key_offset) for q in fitting}) == 1
        return (fitting[-1] if agree else None), mask is None


def _apart(answer: Tensor, asked_with: Any) -> Tensor:
    """The answer as a tensor of its own, whose changes are counted: tensors of inference mode do not count theirs."""
    if answer.is_inference():
        with torch.inference_mode(False):
            return answer.clone()
    return answer.view_as(answer) if answer is asked_with else answer
