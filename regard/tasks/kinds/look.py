"""look: a label for a picture, by a small vision Transformer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

from regard.errors import UserError
from regard.tasks.data import files
from regard.tasks.kind import Batch, Items, Kind, Rows, Tools, in_batches, label_loss
from regard.tasks.kinds.classify import label_scores, labels_of
from regard.tasks.pictures import pixels_of, read_picture
from regard.tasks.recipe import TaskRecipe

SCORED = 256  # pictures at once
PATCHES = 8  # a side of a square picture, at most


def _read(paths: Sequence[Path]) -> list[tuple[Path, str, str]]:
    return files(paths, "label")


def side_of(rows: Rows) -> tuple[int, int]:
    """(side, patch) that pictures like these are seen with: the first one's shorter side, in at most 8 × 8 patches.

    A patch has at least 2 pixels a side.
    """
    shorter = max(min(read_picture(rows[0][0], rows[0][2]).size), 2)
    patch = max(shorter // PATCHES, 2)
    return min(shorter // patch, PATCHES) * patch, patch


def _tools(recipe: TaskRecipe, rows: Rows) -> Tools:
    labels = labels_of(rows)
    if recipe.start is not None:
        kind: Any = ViTForImageClassification
        more = {"use_safetensors": True, "trust_remote_code": False, "ignore_mismatched_sizes": True}
        model = kind.from_pretrained(recipe.start, **more, **labels)
        return Tools(model, None, ViTImageProcessorPil.from_pretrained(recipe.start))
    side, patch = side_of(rows)
    config = ViTConfig(
        hidden_size=recipe.width,
        num_hidden_layers=recipe.depth,
        num_attention_heads=recipe.heads,
        intermediate_size=recipe.feed_forward or 2 * recipe.width,
        hidden_dropout_prob=recipe.dropout,
        initializer_range=recipe.width**-0.5,
        image_size=side,
        patch_size=patch,
        **labels,
    )
    if recipe.width % recipe.heads:
        raise UserError(f"a width of {recipe.width} does not divide into {recipe.heads} heads; choose a divisor")
    return Tools(ViTForImageClassification(config), None, ViTImageProcessorPil(size={"height": side, "width": side}))


def _items(tools: Tools, rows: Rows, recipe: TaskRecipe, notes: list[str]) -> Items:
    numbers = tools.model.config.label2id
    unknown = next((row for row in rows if row[1] not in numbers), None)
    if unknown is not None:
        known = ", ".join(map(repr, numbers))
        raise UserError(f"{unknown[2]} has the label {unknown[1]!r}, which the model has not; it has {known}")
    pixels = pixels_of(tools.processor, rows)
    labels = torch.tensor([numbers[row[1]] for row in rows])
    shift = round(recipe.mask * pixels.shape[-1])

    def batch(chosen: Sequence[int]) -> Batch:
        return {"pixel_values": shifted(pixels[list(chosen)], shift), "labels": labels[list(chosen)]}

    return Items([1] * len(rows), batch)


def shifted(pixels: Tensor, most: int) -> Tensor:
    """Each picture of a batch moved by up to `most` pixels along both sides, its edge repeated."""
    if not most:
        return pixels
    wide = torch.nn.functional.pad(pixels, (most,) * 4, mode="replicate")
    moves = torch.randint(0, 2 * most + 1, (len(pixels), 2)).tolist()
    height, width = pixels.shape[-2:]
    return torch.stack([each[:, y : y + height, x : x + width] for each, (y, x) in zip(wide, moves, strict=True)])


def _loss(model: Any, batch: Batch, smoothing: float) -> Tensor:
    return label_loss(model(pixel_values=batch["pixel_values"]).logits, batch["labels"], smoothing)


def _scores(tools: Tools, model: Any, items: Items, rows: Rows) -> dict[str, float]:
    found: dict[int, int] = {}
    for chosen in in_batches(items, SCORED):
        pixels = items.batch(chosen)["pixel_values"].to(model.device)
        found |= dict(zip(chosen, model(pixel_values=pixels).logits.argmax(-1).tolist(), strict=True))
    return label_scores(model.config.id2label, found, rows)


LOOK = Kind(
    name="look",
    tag="image-classification",
    says="A small vision Transformer",
    defaults={"width": 64, "layers": 3, "heads": 4, "dropout": 0.0, "tokens": 64, "warmup": 100, "average": 0.99}
    | {"rate": 2e-3, "epochs": 150, "patience": 15, "mask": 0.125, "smoothing": 0.1},
    read=_read,
    tools=_tools,
    items=_items,
    loss=_loss,
    scores=_scores,
)
