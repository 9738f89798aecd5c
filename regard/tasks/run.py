"""One call of `regard train --task`: files and a recipe in, a model directory and what came of it out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from random import Random
from typing import Any

import torch

from regard.errors import UserError
from regard.seq2seq.checkpoint import Counters
from regard.seq2seq.directory import keep, metrics_text, opened
from regard.seq2seq.train import Task
from regard.seq2seq.training import run as run_training
from regard.tasks.card import card
from regard.tasks.found import kind as kind_named
from regard.tasks.kind import Batch, Items, Kind, Rows, Tools
from regard.tasks.recipe import TaskRecipe

HELD_OUT = 500


class Loss(torch.nn.Module):
    """A task's loss as a module, so that accelerate can wrap it."""

    def __init__(self, model: Any, kind: Kind, smoothing: float) -> None:
        super().__init__()
        self.model, self.kind, self.smoothing = model, kind, smoothing

    def forward(self, **batch: Any) -> torch.Tensor:
        """The batch's loss, summed over its labels."""
        return self.kind.loss(self.model, batch, self.smoothing)


def run(
    recipe: TaskRecipe,
    folder: Path,
    data: Sequence[Path],
    valid: Sequence[Path],
    test: Sequence[Path] = (),
    minutes: float | None = None,
    steps: int | None = None,
    note: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Train, or go on training; score the model that is kept on `test`; where it stands, as plain JSON."""
    kind = kind_named(recipe.task)
    tested = kind.read(test) if test else None

    def build(recipe: Any, folder: Path, data: Sequence[Path], valid: Sequence[Path]) -> tuple[Task, list[str]]:
        return prepared(kind, recipe, folder, kind.read(data), kind.read(valid) if valid else None)

    result = run_training(recipe, folder, data, valid, minutes, steps, note, build)
    if tested is not None and (folder / "config.json").exists():
        loaded = opened(folder)
        tools = Tools(loaded.model, loaded.tokenizer, loaded.processor)
        items = kind.items(tools, tested, recipe, [])
        with torch.no_grad():
            result["test"] = _rounded(kind.scores(tools, tools.model, items, tested))
    return result


def prepared(kind: Kind, recipe: TaskRecipe, folder: Path, rows: Rows, held_out: Rows | None) -> tuple[Task, list[str]]:
    """The training of these examples, and notes on what was done to them."""
    notes: list[str] = []
    if held_out is None:
        rows, held_out = _split(rows, recipe.seed)
        notes.append(f"{len(held_out)} examples are held out for evaluation; --valid names others")
    torch.manual_seed(recipe.seed)
    tools = kind.tools(recipe, rows)
    items, scored = kind.items(tools, rows, recipe, notes), kind.items(tools, held_out, replace(recipe, mask=0.0), [])

    @torch.no_grad()
    def evaluate(model: Any) -> dict[str, float]:
        return kind.scores(tools, model, scored, held_out)

    def write(model: Any, counters: Counters) -> None:
        metrics = {"recipe": asdict(recipe), "examples": len(rows), "history": counters.history, "best": counters.best}
        about = {"metrics.json": metrics_text(metrics), "README.md": card(kind, recipe, model, metrics)}
        keep(folder, model, tools, about)  # type: ignore[arg-type]

    def batch(chosen: Sequence[int]) -> Batch:
        return items.batch(chosen)

    def loss(model: Any) -> torch.nn.Module:
        return Loss(model, kind, recipe.smoothing)

    return Task(tools.model, items, 0, False, evaluate, write, batch, loss), notes


def _split(rows: Rows, seed: int) -> tuple[Rows, Rows]:
    if len(rows) < 4:
        raise UserError(f"{len(rows)} examples are too few to hold some out for evaluation; name others with --valid")
    order = list(range(len(rows)))
    Random(seed).shuffle(order)
    count = min(HELD_OUT, len(rows) // 5)
    return [rows[i] for i in sorted(order[count:])], [rows[i] for i in sorted(order[:count])]


def _rounded(scores: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in scores.items()}


__all__ = ["Items", "prepared", "run"]
