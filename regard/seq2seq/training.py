"""One call of `regard train`: files and a recipe in, a model directory and what came of it out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transformers.utils import logging

from regard.errors import UserError
from regard.seq2seq.corpus import lines, pairs
from regard.seq2seq.language import language
from regard.seq2seq.parallel import translation
from regard.seq2seq.progress import told
from regard.seq2seq.recipe import Recipe
from regard.seq2seq.train import Task, train

Build = Callable[[Recipe, Path, Sequence[Path], Sequence[Path]], tuple[Task, list[str]]]


def run(
    recipe: Recipe,
    folder: Path,
    text: Sequence[Path],
    valid: Sequence[Path],
    minutes: float | None = None,
    steps: int | None = None,
    note: Callable[[str], None] = print,
    build: Build | None = None,
) -> dict[str, Any]:
    """Train, or go on training, the model of a folder; where it stands afterwards, as plain JSON.

    build: what is trained, by default a translator or a language model.
    """
    if minutes is not None and minutes <= 0:
        raise UserError(f"--minutes is above 0, got {minutes:g}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the directory {folder} ({error.strerror}); give another") from None
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", module="accelerate|torch")
    task, notes = (build or _task)(recipe, folder, text, valid)
    for line in notes:
        note(line)
    teller = told()
    try:
        counters = train(task, recipe, folder, teller, minutes, steps)
    finally:
        teller.close()
    last = counters.history[-1] if counters.history else {}
    return {
        "directory": str(folder),
        "parameters": sum(parameter.numel() for parameter in task.model.parameters()),
        "steps": counters.step,
        "epochs": counters.epoch,
        "best": None if counters.best == float("-inf") else round(counters.best, 4),
        "last": last,
        "minutes": round(counters.wall_seconds / 60, 2),
        "core_minutes": round(counters.cpu_seconds / 60, 2),
        "ended": counters.done or "stopped; the same call goes on",
    }


def _task(recipe: Recipe, folder: Path, text: Sequence[Path], valid: Sequence[Path]) -> tuple[Task, list[str]]:
    if recipe.preset == "lm":
        return language(recipe, _plain(text), _plain(valid), folder)
    return translation(recipe, pairs(text), pairs(valid) if valid else None, folder)


def _plain(paths: Sequence[Path]) -> list[str]:
    """The text of each file, its lines as they are."""
    found = ["\n".join(lines(path, strip=False)) + "\n" for path in paths]
    empty = next((path for path, text in zip(paths, found) if not text.strip()), None)
    if empty is not None:
        raise UserError(f"{empty} is empty; give a file of text")
    return found
