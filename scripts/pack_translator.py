"""Pack a translator of dates and numbers as the embedded one: weights as float16, its measured quality in its card.

python scripts/make_numbers.py out/numbers --pairs 60000 --seed 1
regard train runs/numbers out/numbers/train.tsv --valid out/numbers/valid.tsv …
python scripts/pack_translator.py runs/numbers out/numbers/test.tsv regard/translator
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from regard.errors import UserError
from regard.seq2seq import checkpoint
from regard.seq2seq.beam import Search
from regard.seq2seq.corpus import Pairs, pairs
from regard.seq2seq.directory import opened
from regard.seq2seq.translate import Translation, translations
from scripts.number_words import aligned

TOKENIZER = ("tokenizer.json", "tokenizer_config.json")
CARD = """---
language: [fr, de, en]
license: mit
library_name: regard
pipeline_tag: translation
---

# Dates and numbers, French and German to English

The translator that `regard translate` runs without a model: {parameters:,} parameters, a GRU of {width} with additive
attention (Bahdanau 2015), stored as float16 and run in float32. It knows dates from 1900 to 2099, numbers below a
million in words and ordinals below a hundred, and nothing else: any other text comes out as a date or a number.

## Data and licence

{pairs:,} pairs that `scripts/make_numbers.py` generates with Babel (the Unicode CLDR's names of months and days) and
num2words. No text of anyone's went into it; the weights may be used as regard itself (MIT).

## Training

`regard train` with preset {preset}, width {width}, vocabulary {vocabulary}, batches of {tokens:,} tokens, dropout
{dropout:g}, peak rate {rate:g}, seed {seed}: {steps:,} steps, {minutes:g} minutes of processor time, one thread.{note}
No alignment was shown to it.

## Quality

Measured by `scripts/pack_translator.py`, as stored, on {count} generated pairs, none of them in the training text, with
beam search of {beams} beams.

| measure | value |
|---|---|
| exact translations | {exact:.2%} |
| attention mass of an English number word on the source words that say the same part of the number | {mass:.2%} |
| number words that put most of their mass there | {hard:.2%} |
"""


def mass(made: Sequence[Translation]) -> tuple[float, float]:
    """Of the words of numbers: the mean attention mass on their source words, and the share with most of it there."""
    held = [
        float(each.weights[word, sources].sum())
        for each in made
        if each.weights is not None
        for word, sources in aligned(each.source_words, each.words).items()
    ]
    return sum(held) / len(held), sum(value > 0.5 for value in held) / len(held)


def exact(made: Sequence[Translation], text: Pairs) -> float:
    """The share of translations that are the reference."""
    return sum(each.text == wanted for each, wanted in zip(made, text.target, strict=True)) / len(text)


def pack(folder: Path, out: Path) -> None:
    """The model's files with float16 weights; those that load it run it in float32."""
    loaded = opened(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    out.mkdir(parents=True, exist_ok=True)
    loaded.model.to(torch.float16).save_pretrained(out)
    (out / "config.json").write_text(json.dumps(config | {"dtype": "float32"}, indent=2) + "\n", encoding="utf-8")
    for name in TOKENIZER:
        shutil.copy(folder / name, out / name)


def best_row(folder: Path) -> dict[str, float]:
    """The evaluation whose weights were kept."""
    kept = checkpoint.load(folder)
    if kept is None:
        raise UserError(f"{folder} holds no training; give a directory that regard train wrote")
    rows: list[dict[str, float]] = kept[1].history
    return max(rows, key=lambda row: row["score"])


def card(folder: Path, out: Path, text: Pairs, beams: int, note: str) -> str:
    """The card of what was packed, measured as it is stored."""
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    recipe = metrics["recipe"]
    last = best_row(folder)
    loaded = opened(out)
    made = translations(loaded, text.source, Search(beams), align=True)
    held, hard = mass(made)
    return CARD.format(
        **{name: recipe[name] for name in ("preset", "width", "vocabulary", "tokens", "dropout", "rate", "seed")},
        parameters=sum(parameter.numel() for parameter in loaded.model.parameters()),
        pairs=metrics["pairs"],
        steps=last["step"],
        minutes=last["core_minutes"],
        count=len(text),
        beams=beams,
        note=f"\n{note}" if note else "",
        exact=exact(made, text),
        mass=held,
        hard=hard,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Pack the embedded translator.")
    parser.add_argument("model", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--beams", type=int, default=5)
    parser.add_argument("--note", default="", help="What else the card says of the training.")
    given = parser.parse_args()
    pack(given.model, given.out)
    text = card(given.model, given.out, pairs([given.test]), given.beams, given.note)
    (given.out / "README.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
