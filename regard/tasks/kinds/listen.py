"""listen: the words of a sound."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import Wav2Vec2FeatureExtractor

from regard.errors import UserError
from regard.tasks.data import files
from regard.tasks.kind import Batch, Items, Kind, Rows, Tools, in_batches, written_loss
from regard.tasks.metrics import accuracy, word_error_rate
from regard.tasks.recipe import TaskRecipe
from regard.tasks.sounds import features_of, read_wav
from regard.tasks.words import labels_from, word_tokenizer
from regard.tasks.writer.config import ListenConfig
from regard.tasks.writer.encoders import STRIDE
from regard.tasks.writer.model import Listener, written

SCORED_FRAMES = 20_000
ATTENTIONS = ("content", "local_m", "location")


def _read(paths: Sequence[Path]) -> list[tuple[Path, str, str]]:
    return files(paths, "text")


def _tools(recipe: TaskRecipe, rows: Rows) -> Tools:
    attention = recipe.attention or "location"
    if attention not in ATTENTIONS:
        raise UserError(f"--attention of listen is one of {', '.join(ATTENTIONS)}, not {attention!r}")
    if recipe.start is not None:
        return _from(recipe.start)
    tokenizer = word_tokenizer([words for _, words, _ in rows], recipe.vocabulary, recipe.limit)
    _, rate = read_wav(rows[0][0], rows[0][2])
    config = ListenConfig(
        vocab_size=len(tokenizer),
        embedding_size=recipe.width,
        hidden_size=recipe.width,
        attention_size=recipe.width,
        memory_size=2 * recipe.width,
        encoder_size=recipe.width,
        channels=recipe.width,
        sampling_rate=rate,
        window=rate // 40,
        hop=rate // 100,
        attention=attention,
        pace=_pace(rows, rate),
        hidden_bands=recipe.mask,
        cell=recipe.cell,
        dropout=recipe.dropout,
        max_target_positions=recipe.limit,
    )
    return Tools(Listener(config), tokenizer, _processor(rate))


def _pace(rows: Rows, rate: int) -> float:
    """States for a word, in the mean of the first sounds."""
    first = rows[:200]
    samples = sum(len(read_wav(path, where)[0]) for path, _, where in first)
    words = sum(len(text.split()) for _, text, _ in first)
    return samples / rate * 100 / STRIDE / words


def _processor(rate: int) -> Any:
    return Wav2Vec2FeatureExtractor(sampling_rate=rate, do_normalize=False, return_attention_mask=False)


def _from(start: str) -> Tools:
    from regard.seq2seq.directory import opened

    loaded = opened(start)
    if not isinstance(loaded.model, Listener):
        raise UserError(f"{start} is no listener of regard; --from takes one for listen")
    return Tools(loaded.model, loaded.tokenizer, loaded.processor)


def _items(tools: Tools, rows: Rows, recipe: TaskRecipe, notes: list[str]) -> Items:
    features = features_of(tools.model.config, rows, notes)
    ids = tools.tokenizer([words for _, words, _ in rows])["input_ids"]

    def batch(chosen: Sequence[int]) -> Batch:
        lengths = torch.tensor([len(features[row]) for row in chosen])
        padded = pad_sequence([features[row].float() for row in chosen], batch_first=True)
        labels = labels_from([ids[row] for row in chosen])
        return {"input_features": padded, "lengths": lengths, "labels": labels}

    return Items([len(each) for each in features], batch)


def _scores(tools: Tools, model: Any, items: Items, rows: Rows) -> dict[str, float]:
    found = [""] * len(rows)
    for chosen in in_batches(items, SCORED_FRAMES):
        heard = {name: value.to(model.device) for name, value in items.batch(chosen).items() if name != "labels"}
        texts, _ = written(model, heard, model.config.max_target_positions)
        for row, ids in zip(chosen, texts, strict=True):
            found[row] = tools.tokenizer.decode(ids, skip_special_tokens=True)
    wanted = [words for _, words, _ in rows]
    errors = word_error_rate(found, wanted)
    return {"score": -errors, "word_errors": errors, "exact": accuracy(found, wanted)}


LISTEN = Kind(
    name="listen",
    tag="automatic-speech-recognition",
    says="A listener with attention",
    defaults={"width": 64, "dropout": 0.2, "vocabulary": 4000, "tokens": 8000, "warmup": 100, "average": 0.99}
    | {"rate": 2e-3, "epochs": 40, "patience": 8, "limit": 64, "smoothing": 0.05, "mask": 0.2},
    read=_read,
    tools=_tools,
    items=_items,
    loss=written_loss,
    scores=_scores,
)
