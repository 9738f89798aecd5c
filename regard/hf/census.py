"""A census: a corpus streamed through a model a window at a time, each head's numbers tallied, resumable bit for bit.

The corpus is cut into windows of so many tokens, and windows into shards. What is kept between shards is the tally and
how many shards it holds; memory does not grow with the corpus. A stopped census begins again at the shard it was in.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from regard.errors import UserError
from regard.hf.load import Loaded
from regard.hf.see import look
from regard.seeing.statistics import standard
from regard.seeing.tally import Tally
from regard.seeing.trace import write_whole
from regard.statistic import Statistic

FORMAT = "regard census 1"
READ_CHARACTERS = 1 << 16


@dataclass(frozen=True)
class Plan:
    """What decides a census: the model's name, the corpus and its digest, tokens a window and windows a shard."""

    model: str
    corpus: str
    digest: str
    window: int = 256
    shard: int = 16


def plan(model: str, corpus: Path, window: int, shard: int = 16) -> Plan:
    """Raises UserError for a corpus that is not there, or a window of fewer than 2 tokens."""
    if window < 2 or shard < 1:
        raise UserError(f"a window has at least 2 tokens and a shard at least 1 window, got {window} and {shard}")
    if not corpus.is_file():
        raise UserError(f"there is no corpus {corpus}; give a text file")
    digest = hashlib.sha256()
    with corpus.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return Plan(model, corpus.name, digest.hexdigest(), window, shard)


def windows(corpus: Path, tokenizer: Any, length: int) -> Iterator[list[int]]:
    """The corpus in windows of `length` token ids; what is left at its end is dropped. No line is cut."""
    left: list[int] = []
    with corpus.open(encoding="utf-8", errors="replace") as file:
        while lines := file.readlines(READ_CHARACTERS):
            left += tokenizer("".join(lines), add_special_tokens=False, verbose=False)["input_ids"]
            whole = len(left) // length * length
            for begin in range(0, whole, length):
                yield left[begin : begin + length]
            left = left[whole:]


def census(
    loaded: Loaded,
    corpus: Path,
    of: Plan,
    out: Path,
    *,
    watch: Sequence[Statistic] | None = None,
    most: int | None = None,
    told: Callable[[int, int], None] = lambda windows, tokens: None,
) -> Tally:
    """The tally of a corpus, written to `out` after each shard; goes on where `out` ends.

    most: windows to stop after, None for all. told: called after each shard with windows and tokens so far. Raises
    UserError where `out` is of another census, or the corpus is shorter than a window.
    """
    tally, done = resumed(out, of)
    statistics = [s for s in standard() if s.shape in ("row", "key")] if watch is None else list(watch)
    stream = islice(windows(corpus, loaded.tokenizer, of.window), most)
    for _ in islice(stream, done * of.shard):
        pass
    while part := list(islice(stream, of.shard)):
        mine = Tally()
        for nth, ids in enumerate(part):
            mine.add(look(loaded, {"input_ids": torch.tensor([ids])}, watch=statistics), done * of.shard + nth)
        tally.merge(mine)
        done += 1
        write_whole(out, json.dumps({"format": FORMAT, "plan": asdict(of), "shards": done} | tally.json()))
        told(tally.inputs, tally.inputs * of.window)
    if not tally.inputs:
        raise UserError(f"{corpus} is shorter than one window of {of.window} tokens; give a smaller --window")
    return tally


def resumed(out: Path, of: Plan) -> tuple[Tally, int]:
    """What `out` holds so far, and how many shards. A last shard that was cut short by `most` is complete as it is."""
    if not out.exists():
        return Tally(), 0
    try:
        about = json.loads(out.read_text("utf-8"))
        if about["format"] != FORMAT or about["plan"] != asdict(of):
            raise UserError(f"{out} is of another census (model, corpus or window differ); give another --out")
        return Tally.read(about), int(about["shards"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{out} is no whole census ({type(error).__name__}); give another --out") from None
