"""The task of a causal language model: plain text to rows of tokens, bits per byte, and the heads that have formed."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from regard.errors import UserError
from regard.hf.attach import attach
from regard.seeing.statistics import Induction, PreviousToken
from regard.seq2seq import checkpoint
from regard.seq2seq.batches import Examples
from regard.seq2seq.card import language_card
from regard.seq2seq.checkpoint import Counters
from regard.seq2seq.directory import keep, metrics_text, opened
from regard.seq2seq.objective import Objective
from regard.seq2seq.recipe import Recipe, model_of
from regard.seq2seq.train import Task, mean_loss
from regard.seq2seq.vocabulary import trained_bytes

HELD_OUT = 0.05  # share of each text, its end, that is never trained on where no held-out text is named
EVALUATED = 65536  # tokens of held-out text that are scored


def language(recipe: Recipe, texts: list[str], held_out: list[str], folder: Path) -> tuple[Task, list[str]]:
    """The task of these texts, and notes on what was done to them."""
    notes = []
    if not held_out:
        cuts = [text.rfind("\n", 0, int(len(text) * (1 - HELD_OUT))) + 1 for text in texts]
        held_out = [text[cut:] for text, cut in zip(texts, cuts)]
        texts = [text[:cut] for text, cut in zip(texts, cuts)]
        notes.append(f"the last {HELD_OUT:.0%} of each text is held out for evaluation; --valid names other text")
    tokenizer, model = _tools(recipe, texts, folder)
    rows = _rows(tokenizer, texts, recipe.limit)
    valid = _rows(tokenizer, held_out, recipe.limit)[: max(EVALUATED // recipe.limit, 1)]
    if len(rows) < 2 or not valid:
        raise UserError(f"the text makes {len(rows)} rows of {recipe.limit} tokens; give more text, or a lower --limit")
    rows = _with_repeats(rows, recipe.repeats, recipe.seed)
    pad, scored = int(tokenizer.pad_token_id or 0), Examples(valid, valid)
    size = sum(len(str(tokenizer.decode(row, skip_special_tokens=True)).encode()) for row in valid)
    bytes_each = size / sum(len(row) - 1 for row in valid)

    def evaluate(model: Any) -> dict[str, float]:
        loss = mean_loss(Objective(model, 0.0), scored, pad, True, recipe.tokens)
        return {"score": -loss, "loss": loss, "bits_per_byte": loss / math.log(2) / bytes_each, **heads(model, valid)}

    def write(model: Any, counters: Counters) -> None:
        metrics = {"recipe": asdict(recipe), "rows": len(rows), "history": counters.history, "best": counters.best}
        about = {"metrics.json": metrics_text(metrics), "README.md": language_card(recipe, model, metrics)}
        keep(folder, model, tokenizer, about)

    return Task(model, Examples(rows, rows), pad, True, evaluate, write), notes


def _tools(recipe: Recipe, texts: list[str], folder: Path) -> tuple[PreTrainedTokenizerBase, Any]:
    if recipe.start is not None:
        loaded = opened(recipe.start)
        if loaded.tokenizer is None or loaded.model.config.is_encoder_decoder:
            raise UserError(f"{recipe.start} is no causal language model with a tokenizer; --from takes one for lm")
        return loaded.tokenizer, loaded.model
    kept = folder / checkpoint.FOLDER / "tokenizer"
    if not kept.is_dir():
        trained_bytes(texts, recipe.vocabulary, recipe.limit).save_pretrained(kept)
    tokenizer = AutoTokenizer.from_pretrained(kept)
    torch.manual_seed(recipe.seed)
    return tokenizer, model_of(recipe, len(tokenizer))


def _rows(tokenizer: Any, texts: Sequence[str], limit: int) -> list[list[int]]:
    """Rows of `limit` tokens, each beginning with the start token where there is one; a text's rest is left out."""
    first = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    each, rows = limit - len(first), []
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        rows += [[*first, *ids[i : i + each]] for i in range(0, len(ids) - each + 1, each)]
    return rows


def _with_repeats(rows: list[list[int]], share: float, seed: int) -> list[list[int]]:
    """The rows, and among them so large a share of rows in which a passage stands twice, as in long documents.

    A passage of 16 tokens to half a row comes again right after itself or further on.
    """
    draw, found = random.Random(seed), list(rows)
    for _ in range(int(len(rows) * share / (1 - share))):
        row = draw.choice(rows)
        size = draw.randint(min(16, len(row) // 2), len(row) // 2)
        begin = draw.randint(1, len(row) - 2 * size) if len(row) > 2 * size else 1
        again = draw.randint(begin + size, max(len(row) - size, begin + size))
        found.append([*row[:again], *row[begin : begin + size], *row[again + size :]][: len(row)])
    return found


@torch.no_grad()
def heads(model: Any, rows: list[list[int]]) -> dict[str, float]:
    """The clearest previous-token head on text and the clearest induction head on repeated random tokens, 0 to 1."""
    random_ids = torch.Generator().manual_seed(0)
    begin, size = model.config.bos_token_id or 0, model.config.vocab_size
    x = torch.randint(size // 8, size, (4, 50), generator=random_ids)
    repeated = torch.cat([torch.full((4, 1), begin), x, x], 1)
    text = torch.tensor([row[:128] for row in rows[:8]])
    found = {}
    for name, ids, statistic in (("previous", text, PreviousToken()), ("induction", repeated, Induction())):
        with attach(model, watch=[statistic]) as trace:
            model(input_ids=ids.to(model.device))
        found[name] = max((value for _, _, value in trace.heads(name)), default=0.0)
    return found
