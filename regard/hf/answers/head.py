"""What a head is asked, and what it is asked with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import transformers as tf
from torch import Tensor

from regard.hf.load import Loaded
from regard.hf.running import Ran
from regard.seeing.answer import Answer, Choice

LIKELIEST = 5  # choices that are kept


@dataclass(frozen=True, eq=False)
class Seen:
    """An input that went through a model, and what came out. question: of a model that answers one about a text.
    rows: slots along the answer's axis, where it was watched."""

    loaded: Loaded
    given: Any
    inputs: Mapping[str, Tensor]
    ran: Ran
    question: str | None = None
    rows: int | None = None

    @property
    def model(self) -> tf.PreTrainedModel:
        return self.loaded.model

    @property
    def batch(self) -> int:
        """How many sequences went in."""
        return int(next(iter(self.inputs.values())).shape[0])

    @property
    def logits(self) -> Tensor:
        """The head's numbers, float32 on the CPU."""
        return self.ran.output.logits.detach().float().cpu()

    def length(self, row: int) -> int:
        """Tokens of a text of the batch, padding left out."""
        mask = self.inputs.get("attention_mask")
        return int(mask[row].sum()) if mask is not None else int(self.inputs["input_ids"].shape[1])

    def last(self, row: int) -> int:
        """The slot of a text's last token, on whichever side its padding stands."""
        mask = self.inputs.get("attention_mask")
        return int(mask[row].nonzero()[-1]) if mask is not None else int(self.inputs["input_ids"].shape[1]) - 1

    def decode(self, ids: Any) -> str:
        """Token ids as a text without special tokens; their numbers where there is no tokenizer."""
        numbers = [int(number) for number in ids]
        if self.loaded.tokenizer is None:
            return " ".join(map(str, numbers))
        return str(self.loaded.tokenizer.decode(numbers, skip_special_tokens=True))


@dataclass(frozen=True, eq=False)
class Head:
    """A kind of answer. task: its name; order: heads of a lower one are asked first; fits: whether a model has it."""

    task: str
    order: int
    fits: Callable[[tf.PreTrainedModel], bool]
    answers: Callable[[Seen], list[Answer]]


def is_one_of(*autos: str) -> Callable[[tf.PreTrainedModel], bool]:
    """Whether an Auto class of transformers gives this very class for this config; own types that are registered
    count."""

    def fits(model: tf.PreTrainedModel) -> bool:
        for name in autos:
            mapping = getattr(tf, name)._model_mapping
            if type(model.config) in mapping:
                kinds = mapping[type(model.config)]
                if type(model) in (kinds if isinstance(kinds, tuple) else (kinds,)):
                    return True
        return False

    return fits


def likeliest(seen: Seen, logits: Tensor) -> tuple[Choice, ...]:
    """The likeliest tokens of one row of logits [V]."""
    best = torch.softmax(logits, -1).topk(min(LIKELIEST, logits.shape[-1]))
    return token_choices(seen, best.indices.tolist(), best.values.tolist())


def token_choices(seen: Seen, ids: list[int], chances: list[float]) -> tuple[Choice, ...]:
    """Tokens with their probabilities."""
    tokenizer = seen.loaded.tokenizer
    texts = [str(number) if tokenizer is None else str(tokenizer.decode([number])) for number in ids]
    return tuple(Choice(text, chance) for text, chance in zip(texts, chances, strict=True))
