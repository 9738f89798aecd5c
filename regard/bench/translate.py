"""`regard bench translate`: BLEU by source length for models with and without attention, and decoding speed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

from regard.bench.machine import describe
from regard.errors import UserError
from regard.seq2seq.batches import padded
from regard.seq2seq.beam import Search
from regard.seq2seq.corpus import Pairs
from regard.seq2seq.decode import outputs
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


@torch.no_grad()
def speed(name: str, sources: Sequence[str], search: Search, batch: int, turns: int) -> dict[str, Any]:
    """Seconds of regard's beam search and of transformers' generate over the same batches, in turns, both float32.

    Both with the same weights and sdpa; the same translations count as agreement.
    """
    loaded = opened(name)
    model: Any = loaded.model
    tokenizer: Any = loaded.tokenizer
    ids = sorted(tokenizer(list(sources), verbose=False)["input_ids"], key=len)
    batches = []
    for begin in range(0, len(ids), batch):
        rows = ids[begin : begin + batch]
        lengths = torch.tensor([len(row) for row in rows])
        source = padded(rows, int(tokenizer.pad_token_id or 0))
        batches.append((source, (torch.arange(source.shape[1]) < lengths[:, None]).long()))
    never = [model.config.pad_token_id, model.config.decoder_start_token_id]
    end = int(model.config.eos_token_id)

    def theirs(source: Any, mask: Any) -> list[list[int]]:
        asked = {"num_beams": search.beams, "do_sample": False, "length_penalty": search.length_penalty}
        written = model.generate(
            input_ids=source, attention_mask=mask, max_new_tokens=search.longest, suppress_tokens=never, **asked
        )[:, 1:].tolist()
        return [row[: row.index(end)] if end in row else row for row in written]

    contestants = {"regard": lambda s, m: outputs(model, s, m, search), "transformers": theirs}
    first = {who: [run(*pair) for pair in batches[:2]] for who, run in contestants.items()}
    seconds: dict[str, list[float]] = {who: [] for who in contestants}
    for _ in range(turns):
        for who, run in contestants.items():
            begin_time = time.perf_counter()
            for pair in batches:
                run(*pair)
            seconds[who].append(time.perf_counter() - begin_time)
    ratio = median(b / a for a, b in zip(seconds["regard"], seconds["transformers"], strict=True))
    return {
        "model": Path(name).name,
        "sentences": len(ids),
        "batch": batch,
        "beams": search.beams,
        "seconds": {who: round(median(times), 3) for who, times in seconds.items()},
        "faster_than_transformers": round(ratio, 2),
        "same_translations": first["regard"] == first["transformers"],
        "machine": describe(),
    }


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
