"""What a task of `regard train` is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from regard.tasks.recipe import TaskRecipe

Batch = dict[str, Tensor]
Rows = Sequence[Any]
"""Examples as they are read, each as its task has it: (text, label), (path, words) …"""


@dataclass(frozen=True, eq=False)
class Items:
    """Examples as tensors. sizes: of each, in the unit that `--tokens` counts; batch: the tensors of some, "labels"
    among them, -100 where there is none."""

    sizes: list[int]
    batch: Callable[[Sequence[int]], Batch]

    def __len__(self) -> int:
        return len(self.sizes)

    def length(self, row: int) -> int:
        """What an example takes of a batch."""
        return self.sizes[row]

    def order(self, row: int) -> tuple[int, ...]:
        """By what examples of a batch are alike."""
        return (self.sizes[row],)


@dataclass(frozen=True, eq=False)
class Tools:
    """A model, and what turns inputs into its tensors: each is saved with it."""

    model: Any
    tokenizer: Any = None
    processor: Any = None

    def save_pretrained(self, folder: Path) -> None:
        """Write what is not the model."""
        for part in (self.tokenizer, self.processor):
            if part is not None:
                part.save_pretrained(folder)


@dataclass(frozen=True, eq=False)
class Kind:
    """A task. defaults: the recipe's, where it differs; says: what its model is, for the card; tag: its pipeline on the
    hub; read: the examples of files; tools: a model for them; items: tensors; loss: of a batch, summed over labels;
    scores: of a model in eval mode on examples, "score" among them, higher is better."""

    name: str
    tag: str
    says: str
    defaults: Mapping[str, Any]
    read: Callable[[Sequence[Path]], Rows]
    tools: Callable[[TaskRecipe, Rows], Tools]
    items: Callable[[Tools, Rows, TaskRecipe, list[str]], Items]
    loss: Callable[[Any, Batch, float], Tensor]
    scores: Callable[[Tools, Any, Items, Rows], dict[str, float]]


def in_batches(items: Items, tokens: int) -> list[list[int]]:
    """All rows, those of like size together, each batch of at most `tokens`."""
    from regard.seq2seq.batches import by_tokens

    return by_tokens(sorted(range(len(items)), key=items.order), items.length, tokens)


def label_loss(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Σ of the cross-entropy with label smoothing over labels that are not -100. logits [...,C], labels [...]."""
    return torch.nn.functional.cross_entropy(
        logits.float().flatten(0, -2), labels.flatten(), label_smoothing=smoothing, reduction="sum"
    )


def written_loss(model: Any, batch: Batch, smoothing: float) -> Tensor:
    """Mean label_loss of the tokens that a writer writes; labels of -100 are padding."""
    labels = batch["labels"]
    logits = model(**batch, use_cache=False).logits
    known = labels != -100
    return label_loss(logits[known], labels[known], smoothing)
