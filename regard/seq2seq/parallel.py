"""The task of translation: from parallel text to examples, scores and a model directory."""

from __future__ import annotations

import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from regard.errors import UserError
from regard.seq2seq import checkpoint
from regard.seq2seq.batches import Examples
from regard.seq2seq.beam import Search
from regard.seq2seq.card import translator_card
from regard.seq2seq.checkpoint import Counters
from regard.seq2seq.corpus import Pairs
from regard.seq2seq.decode import decoded
from regard.seq2seq.directory import keep, metrics_text, opened
from regard.seq2seq.objective import Objective
from regard.seq2seq.recipe import Recipe, model_of
from regard.seq2seq.score import scores
from regard.seq2seq.train import Task, mean_loss
from regard.seq2seq.vocabulary import trained

HELD_OUT = 500


def translation(recipe: Recipe, text: Pairs, held_out: Pairs | None, folder: Path) -> tuple[Task, list[str]]:
    """The task of these sentences, and notes on what was done to them: cut sentences, pairs held out.

    A folder with a checkpoint brings its own tokenizer, so that a training goes on with the same pieces.
    """
    notes: list[str] = []
    if held_out is None:
        text, held_out = _split(text, recipe.seed)
        notes.append(f"{len(held_out)} pairs are held out for evaluation; --valid names others")
    tokenizer, model = _tools(recipe, text, folder)
    examples = encoded(tokenizer, text, recipe.limit, notes)
    valid = encoded(tokenizer, held_out, recipe.limit, [])
    pad = int(tokenizer.pad_token_id or 0)
    longest = max(map(len, valid.target))
    search = Search(beams=1, longest=min(recipe.limit, longest + longest // 4))

    def evaluate(model: Any) -> dict[str, float]:
        loss = mean_loss(Objective(model, 0.0), valid, pad, False, recipe.tokens)
        found = translated(model, tokenizer, valid.source, search)
        exact = sum(map(str.__eq__, found, held_out.target)) / len(found)
        bleu = scores(found, held_out.target).bleu
        return {"score": bleu, "bleu": bleu, "exact": exact, "loss": loss}

    def write(model: Any, counters: Counters) -> None:
        metrics = {"recipe": asdict(recipe), "pairs": len(text), "history": counters.history, "best": counters.best}
        about = {"metrics.json": metrics_text(metrics), "README.md": translator_card(recipe, model, metrics)}
        keep(folder, model, tokenizer, about)

    return Task(model, examples, pad, False, evaluate, write), notes


def _split(text: Pairs, seed: int) -> tuple[Pairs, Pairs]:
    if len(text) < 4:
        raise UserError(f"{len(text)} pairs are too few to hold some out for evaluation; name others with --valid")
    order = list(range(len(text)))
    random.Random(seed).shuffle(order)
    count = min(HELD_OUT, len(text) // 4)
    return text.part(sorted(order[count:])), text.part(sorted(order[:count]))


def _tools(recipe: Recipe, text: Pairs, folder: Path) -> tuple[PreTrainedTokenizerBase, Any]:
    if recipe.start is not None:
        loaded = opened(recipe.start)
        if loaded.tokenizer is None or not loaded.model.config.is_encoder_decoder:
            raise UserError(f"{recipe.start} is no encoder–decoder with a tokenizer; --from takes one for translation")
        return loaded.tokenizer, loaded.model
    kept = folder / checkpoint.FOLDER / "tokenizer"
    if not kept.is_dir():
        made = trained([*text.source, *text.target], recipe.vocabulary, recipe.tokenizer, recipe.limit)
        made.save_pretrained(kept)
    tokenizer = AutoTokenizer.from_pretrained(kept)
    import torch

    torch.manual_seed(recipe.seed)
    return tokenizer, model_of(recipe, len(tokenizer))


def encoded(tokenizer: Any, text: Pairs, limit: int, notes: list[str]) -> Examples:
    """Token ids of both sides; what is longer than `limit` is cut, its end kept, and counted in the notes."""
    source = tokenizer(text.source, truncation=False, verbose=False)["input_ids"]
    target = tokenizer(text_target=text.target, truncation=False, verbose=False)["input_ids"]
    cut = sum(len(ids) > limit for side in (source, target) for ids in side)
    if cut:
        notes.append(f"{cut} sentences are longer than {limit} tokens and were cut there; --limit takes longer ones")
    return Examples([_cut(ids, limit) for ids in source], [_cut(ids, limit) for ids in target])


def _cut(ids: list[int], limit: int) -> list[int]:
    return ids if len(ids) <= limit else [*ids[: limit - 1], ids[-1]]


def translated(model: Any, tokenizer: Any, sources: list[list[int]], search: Search) -> list[str]:
    """The translation of each source as text."""
    found = [""] * len(sources)
    for row, ids in decoded(model, sources, search):
        found[row] = tokenizer.decode(ids, skip_special_tokens=True).strip()
    return found
