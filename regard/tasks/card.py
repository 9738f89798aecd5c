"""The card of a task's model."""

from __future__ import annotations

from typing import Any

from regard.tasks.kind import Kind
from regard.tasks.recipe import TaskRecipe


def card(kind: Kind, recipe: TaskRecipe, model: Any, metrics: dict[str, Any]) -> str:
    """README.md: what the model is, how it came to be, how good it is."""
    count = sum(parameter.numel() for parameter in model.parameters())
    last = metrics["history"][-1] if metrics["history"] else {}
    about = f"Begun from {recipe.start}. " if recipe.start else "Begun from random weights. "
    return (
        f"---\nlibrary_name: regard\npipeline_tag: {kind.tag}\n---\n\n"
        f"# {kind.says}\n\n"
        f"Trained by `regard train --task {kind.name}` on {metrics['examples']:,} examples, seed {recipe.seed}. {about}"
        f"{count:,} parameters.\n\n"
        f"Best score on held-out examples: {metrics['best']:.4g}. Training until then: "
        f"{last.get('step', 0):,} steps, {last.get('minutes', 0)} minutes.\n\n"
        "Use: `regard see DIRECTORY INPUT`. The recipe and every evaluation are in metrics.json. What the data's "
        "licence asks holds for these weights too.\n"
    )
