"""summarise: a few words for a text, names among them copied."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from regard.errors import UserError
from regard.seq2seq.batches import padded
from regard.seq2seq.directory import opened
from regard.seq2seq.score import scores
from regard.seq2seq.vocabulary import trained
from regard.tasks.data import Row, columns
from regard.tasks.kind import Batch, Items, Kind, Rows, Tools, in_batches, written_loss
from regard.tasks.metrics import accuracy
from regard.tasks.recipe import TaskRecipe
from regard.tasks.words import labels_from
from regard.tasks.writer.config import SummaryConfig
from regard.tasks.writer.model import Summariser, written

SCORED_TOKENS = 8192


def _read(paths: Sequence[Path]) -> list[Row]:
    return columns(paths, "text", "summary")


def _tools(recipe: TaskRecipe, rows: Rows) -> Tools:
    if recipe.start is not None:
        loaded = opened(recipe.start)
        if not loaded.model.config.is_encoder_decoder or loaded.tokenizer is None:
            raise UserError(f"{recipe.start} is no encoder–decoder with a tokenizer; --from takes one for summarise")
        return Tools(loaded.model, loaded.tokenizer)
    tokenizer = trained([side for row in rows for side in row], recipe.vocabulary, recipe.tokenizer, recipe.limit)
    config = SummaryConfig(
        vocab_size=len(tokenizer),
        embedding_size=recipe.width,
        hidden_size=recipe.width,
        attention_size=recipe.width,
        memory_size=2 * recipe.width,
        encoder_layers=recipe.depth,
        pointer=True,
        cell=recipe.cell,
        dropout=recipe.dropout,
        max_position_embeddings=recipe.limit,
        max_target_positions=recipe.limit,
    )
    return Tools(Summariser(config), tokenizer)


def _items(tools: Tools, rows: Rows, recipe: TaskRecipe, notes: list[str]) -> Items:
    source, target = ([_ids(tools, text, recipe.limit) for text in side] for side in zip(*rows, strict=True))
    cut = sum(len(ids) == recipe.limit for ids in source)
    if cut:
        notes.append(f"{cut} texts fill {recipe.limit} tokens and may be cut there; --limit takes longer ones")
    pad = int(tools.tokenizer.pad_token_id)

    def batch(chosen: Sequence[int]) -> Batch:
        words = padded([source[row] for row in chosen], pad)
        mask = torch.arange(words.shape[1]) < torch.tensor([len(source[row]) for row in chosen])[:, None]
        labels = labels_from([target[row] for row in chosen])
        return {"input_ids": words, "attention_mask": mask.long(), "labels": labels}

    return Items([max(len(a), len(b)) for a, b in zip(source, target, strict=True)], batch)


def _ids(tools: Tools, text: str, limit: int) -> list[int]:
    ids: list[int] = tools.tokenizer(text, verbose=False)["input_ids"]
    return ids if len(ids) <= limit else [*ids[: limit - 1], ids[-1]]


def _scores(tools: Tools, model: Any, items: Items, rows: Rows) -> dict[str, float]:
    found = [""] * len(rows)
    for chosen in in_batches(items, SCORED_TOKENS):
        batch = {name: value.to(model.device) for name, value in items.batch(chosen).items() if name != "labels"}
        for row, ids in zip(chosen, _written(model, batch, items, chosen), strict=True):
            found[row] = tools.tokenizer.decode(ids, skip_special_tokens=True).strip()
    wanted = [row[1] for row in rows]
    exact = accuracy(found, wanted)
    return {"score": exact, "exact": exact, "bleu": scores(found, wanted).bleu}


def _written(model: Any, batch: Batch, items: Items, chosen: Sequence[int]) -> list[list[int]]:
    longest = items.batch(chosen)["labels"].shape[1] + 4
    if isinstance(model, Summariser):
        return written(model, batch, longest)[0]
    made: list[list[int]] = model.generate(**batch, max_new_tokens=longest, do_sample=False, num_beams=1).tolist()
    return made


SUMMARISE = Kind(
    name="summarise",
    tag="summarization",
    says="A summariser with a pointer",
    defaults={
        "width": 64,
        "layers": 1,
        "dropout": 0.1,
        "vocabulary": 600,
        "tokens": 2048,
        "warmup": 100,
        "average": 0.99,
    }
    | {"rate": 3e-3, "epochs": 30, "patience": 6, "limit": 160, "smoothing": 0.0},
    read=_read,
    tools=_tools,
    items=_items,
    loss=written_loss,
    scores=_scores,
)
