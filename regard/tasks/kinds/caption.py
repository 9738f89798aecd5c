"""caption: a sentence for a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import ViTImageProcessorPil

from regard.errors import UserError
from regard.seq2seq.score import scores
from regard.tasks.data import files
from regard.tasks.kind import Batch, Items, Kind, Rows, Tools, in_batches, label_loss
from regard.tasks.metrics import accuracy
from regard.tasks.pictures import pixels_of, read_picture
from regard.tasks.recipe import TaskRecipe
from regard.tasks.words import labels_from, word_tokenizer
from regard.tasks.writer.config import CaptionConfig
from regard.tasks.writer.model import Captioner, written

SCORED = 200  # pictures at once
PATCH = 8
ATTENTIONS = ("soft", "hard")
REWARD = 1.0  # of hard attention's draws


def _read(paths: Sequence[Path]) -> list[tuple[Path, str, str]]:
    return files(paths, "caption")


def _tools(recipe: TaskRecipe, rows: Rows) -> Tools:
    attention = recipe.attention or "soft"
    if attention not in ATTENTIONS:
        raise UserError(f"--attention of caption is one of {', '.join(ATTENTIONS)}, not {attention!r}")
    if recipe.start is not None:
        return _from(recipe.start, recipe.attention)
    tokenizer = word_tokenizer([words for _, words, _ in rows], recipe.vocabulary, recipe.limit)
    side = max(min(read_picture(rows[0][0], rows[0][2]).size) // PATCH, 1) * PATCH
    config = CaptionConfig(
        vocab_size=len(tokenizer),
        embedding_size=recipe.width,
        hidden_size=recipe.width,
        attention_size=recipe.width,
        memory_size=recipe.width,
        channels=max(recipe.width // 4 // 4, 1) * 4,
        image_size=side,
        patch_size=PATCH,
        attention=attention,
        gate=True,
        cell=recipe.cell,
        dropout=recipe.dropout,
        max_target_positions=recipe.limit,
    )
    processor = ViTImageProcessorPil(size={"height": side, "width": side})
    return Tools(Captioner(config), tokenizer, processor)


def _from(start: str, attention: str | None) -> Tools:
    from regard.seq2seq.directory import opened

    loaded = opened(start)
    if not isinstance(loaded.model, Captioner):
        raise UserError(f"{start} is no captioner of regard; --from takes one for caption")
    if attention is not None:
        loaded.model.config.attention = attention
    return Tools(loaded.model, loaded.tokenizer, loaded.processor)


def _items(tools: Tools, rows: Rows, recipe: TaskRecipe, notes: list[str]) -> Items:
    pixels = pixels_of(tools.processor, rows)
    ids = tools.tokenizer([words for _, words, _ in rows])["input_ids"]
    longest = max(map(len, ids))
    if longest > tools.model.config.max_target_positions:
        raise UserError(f"a caption has {longest} tokens; --limit takes captions longer than {recipe.limit}")
    penalty = torch.tensor(recipe.penalty)

    def batch(chosen: Sequence[int]) -> Batch:
        labels = labels_from([ids[row] for row in chosen])
        return {"pixel_values": pixels[list(chosen)], "labels": labels, "penalty": penalty}

    return Items([1] * len(rows), batch)


def _loss(model: Any, batch: Batch, smoothing: float) -> Tensor:
    """-log p(caption) + λ Σ_i (1 - Σ_t α_ti)² (Xu 2015, eq. 14), λ times as many as there are captions' mean words.

    Hard attention: the draws' log p, weighed by how much better than the batch the word drawn for is foretold
    (REINFORCE, Xu 2015, section 4.1).
    """
    labels = batch["labels"]
    steps, past = model.steps(
        model.prepare_decoder_input_ids_from_labels(labels), model.encode({"pixel_values": batch["pixel_values"]})
    )
    logits = model.logits(steps, past)
    known = labels != -100
    loss = label_loss(logits[known], labels[known], smoothing)
    if steps.log_drawn is not None:
        said = logits.detach().log_softmax(-1).gather(2, labels.clamp(min=0)[..., None])[..., 0]
        mean = (said * known).sum(0) / known.sum(0).clamp(min=1)
        loss = loss - REWARD * ((said - mean) * steps.log_drawn * known).sum()
    else:
        looked = (steps.weights * known[..., None]).sum(1)
        loss = loss + batch["penalty"] * (1 - looked).square().sum()
    return loss


def _scores(tools: Tools, model: Any, items: Items, rows: Rows) -> dict[str, float]:
    found = [""] * len(rows)
    for chosen in in_batches(items, SCORED):
        pixels = items.batch(chosen)["pixel_values"].to(model.device)
        texts, _ = written(model, {"pixel_values": pixels}, model.config.max_target_positions)
        for row, ids in zip(chosen, texts, strict=True):
            found[row] = tools.tokenizer.decode(ids, skip_special_tokens=True)
    # both sides as the tokenizer writes them, so that its spaces are no mistakes
    wanted = [tools.tokenizer.decode(ids, skip_special_tokens=True) for ids in _ids(tools, rows)]
    exact = accuracy(found, wanted)
    return {"score": exact, "exact": exact, "bleu": scores(found, wanted).bleu}


def _ids(tools: Tools, rows: Rows) -> list[list[int]]:
    ids: list[list[int]] = tools.tokenizer([words for _, words, _ in rows])["input_ids"]
    return ids


CAPTION = Kind(
    name="caption",
    tag="image-to-text",
    says="A captioner with visual attention",
    defaults={"width": 64, "dropout": 0.05, "vocabulary": 4000, "tokens": 32, "warmup": 100, "average": 0.99}
    | {"rate": 2e-3, "epochs": 40, "patience": 8, "limit": 64, "smoothing": 0.0, "penalty": 0.0, "evaluate": 250},
    read=_read,
    tools=_tools,
    items=_items,
    loss=_loss,
    scores=_scores,
)
