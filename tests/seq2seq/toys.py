"""Tiny models with random weights, and a language of ten words in which every word has one translation."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from regard.seq2seq.recipe import Recipe, model_of

KINDS: dict[str, dict[str, Any]] = {
    "rnn": {"preset": "rnn"},
    "bahdanau": {"preset": "bahdanau"},
    "bahdanau lstm entmax": {"preset": "bahdanau", "cell": "lstm", "mechanism": "entmax(1.5)"},
    "luong general": {"preset": "luong"},
    "luong dot": {"preset": "luong", "attention": "dot"},
    "luong concat": {"preset": "luong", "attention": "concat"},
    "luong local_m": {"preset": "luong", "attention": "local_m"},
    "luong local_p": {"preset": "luong", "attention": "local_p"},
    "transformer": {"preset": "transformer"},
    "transformer swapped": {"preset": "transformer", "mechanism": "entmax(1.5)"},
}
ATTENTIVE = [name for name in KINDS if name != "rnn"]
SOURCE = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
TARGET = ["null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun"]


def model(kind: str, vocabulary: int = 40) -> Any:
    """A model of this kind in eval mode, its weights large enough that it prefers some words."""
    torch.manual_seed(3)
    made = model_of(Recipe(width=32, layers=1, limit=64, **KINDS[kind]), vocabulary).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.requires_grad and parameter.ndim > 1:
                parameter *= 2.5
    return made


def batch(rows: int = 5, length: int = 9) -> tuple[Tensor, Tensor]:
    """Sources of different length and their mask, int64 [rows, length]; 0 is padding."""
    ids = torch.randint(4, 40, (rows, length), generator=torch.Generator().manual_seed(5))
    mask = (torch.arange(length) < length - torch.arange(rows)[:, None]).long()
    return ids * mask, mask


def write_pairs(folder: Path, count: int = 400, seed: int = 0) -> tuple[Path, Path]:
    """Two parallel files of count lines."""
    draw, sides = random.Random(seed), ([], [])
    for _ in range(count):
        numbers = [draw.randrange(10) for _ in range(draw.randint(1, 5))]
        for side, words in zip(sides, (SOURCE, TARGET)):
            side.append(" ".join(words[number] for number in numbers))
    paths = folder / "text.en", folder / "text.de"
    for path, side in zip(paths, sides):
        path.write_text("\n".join(side) + "\n", encoding="utf-8")
    return paths


RECIPE = Recipe(
    preset="bahdanau", width=32, vocabulary=200, tokens=256, dropout=0.1, smoothing=0.0, rate=0.01, warmup=30,
    average=0.9, evaluate=10**6, limit=32,
)  # fmt: skip
