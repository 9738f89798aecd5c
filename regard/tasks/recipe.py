"""The recipe of a task: that of a training, with the task's own defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from regard.errors import UserError
from regard.seq2seq.recipe import Recipe


@dataclass(frozen=True)
class TaskRecipe(Recipe):
    """As `Recipe`, which documents what both share. task: its name. attention: of a writer, content, location, local_m;
    soft or hard of a captioner. penalty: λ of doubly stochastic attention. mask: share of words, or of frames and mel
    bands, that are hidden in training."""

    task: str = "classify"
    penalty: float = 0.0
    mask: float = 0.0

    def __post_init__(self) -> None:
        self.check_numbers()
        if not 0 <= self.mask < 1 or self.penalty < 0:
            raise UserError(f"mask lies in [0, 1) and penalty is at least 0, got {self.mask} and {self.penalty}")


def recipe_of(task: str, asked: dict[str, Any]) -> TaskRecipe:
    """The recipe of a task: its defaults, and what was asked for instead. Raises UserError for what it has not."""
    from regard.tasks.found import kind

    return TaskRecipe(**{**kind(task).defaults, **asked, "task": task})
