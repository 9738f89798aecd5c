"""`regard bench translate`: BLEU by source length for models with and without attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from regard.errors import UserError
from regard.seq2seq.beam import Search
from regard.seq2seq.corpus import Pairs
from regard.seq2seq.directory import opened
from regard.seq2seq.score import scores
from regard.seq2seq.translate import translations

FIFTHS = 5


def joined(text: Pairs, most: int) -> Pairs:
    """The pairs, and their neighbours joined by twos, threes … up to `most`: sentences longer than any by itself."""
    source, target = list(text.source), list(text.target)
    for count in range(2, most + 1):
        for begin in range(0, len(text) - count + 1, count):
            source.append(" ".join(text.source[begin : begin + count]))
            target.append(" ".join(text.target[begin : begin + count]))
    return Pairs(source, target)


def fifths(text: Pairs) -> list[list[int]]:
    """Rows of the pairs in five equal parts by the number of source words, the shortest first."""
    order = sorted(range(len(text)), key=lambda row: (len(text.source[row].split()), row))
    if len(order) < FIFTHS:
        raise UserError(f"{len(order)} pairs do not make fifths by length; give at least {FIFTHS}")
    return [order[len(order) * part // FIFTHS : len(order) * (part + 1) // FIFTHS] for part in range(FIFTHS)]


def quality(models: Sequence[str], text: Pairs, search: Search, told: Callable[[str], None]) -> list[dict[str, Any]]:
    """BLEU of each model overall and by fifths of source length, with the mean words of each fifth."""
    rows = []
    parts = fifths(text)
    words = [round(sum(len(text.source[row].split()) for row in part) / len(part), 1) for part in parts]
    for name in models:
        found = [made.text for made in translations(opened(name), text.source, search, note=told)]
        by_length = [
            round(scores([found[row] for row in part], [text.target[row] for row in part]).bleu, 2) for part in parts
        ]
        whole = scores(found, text.target)
        rows.append(
            {"model": Path(name).name, "bleu": round(whole.bleu, 2), "chrf": round(whole.chrf, 2)}
            | {"words": words, "by_length": by_length, "signature": whole.signature}
        )
        told(f"{name}: {whole.bleu:.2f} BLEU")
    return rows


def table(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """What the command prints."""
    head = ["model", "BLEU", "chrF", *(f"{words} words" for words in rows[0]["words"])]
    return [head] + [
        [row["model"], f"{row['bleu']:.2f}", f"{row['chrf']:.2f}", *(f"{bleu:.1f}" for bleu in row["by_length"])]
        for row in rows
    ]


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """BLEU against source length, a line a model, as an image file."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.add_subplot()
    for row in rows:
        axes.plot(row["words"], row["by_length"], "o-", label=row["model"], linewidth=1.6, markersize=4)
    axes.set_xlabel("words of the source (fifths of the sentences, mean)")
    axes.set_ylabel("BLEU")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=130)
