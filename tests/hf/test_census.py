"""A census of a corpus: the numbers are those of its windows, and stopping changes no bit."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from regard.errors import UserError
from regard.hf.census import census, plan, resumed, windows
from regard.hf.load import Loaded, load
from regard.hf.see import look
from regard.seeing.statistics import Entropy, PreviousToken
from regard.seeing.tally import Numbers, Tally

WATCH = (Entropy(), PreviousToken())
TEXT = "".join(f"Line {n}: a blue creature saw {n * 7 % 11} birds in the forest.\n" for n in range(60))


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return load(None)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_the_numbers_are_those_of_the_windows(loaded: Loaded, corpus: Path, tmp_path: Path) -> None:
    of = plan("default", corpus, 32, shard=2)
    tally = census(loaded, corpus, of, tmp_path / "c.json", watch=WATCH, most=5)
    seen = []
    for ids, _ in zip(windows(corpus, loaded.tokenizer, 32), range(5), strict=False):
        trace = look(loaded, {"input_ids": torch.tensor([ids])}, watch=WATCH)
        seen.append(float(trace.layers[1].summaries["entropy"][0, 2]))
    numbers = tally.numbers[trace.layers[1].title, 2, "entropy"]
    assert tally.inputs == numbers.count == 5
    assert numbers.mean == pytest.approx(sum(seen) / 5, rel=1e-12)
    assert numbers.spread == pytest.approx(float(torch.tensor(seen).double().std(correction=0)), rel=1e-6)
    assert numbers.best[0] == (max(seen), seen.index(max(seen))) and len(numbers.best) == 3


def test_a_stopped_census_goes_on_to_the_same_bits(loaded: Loaded, corpus: Path, tmp_path: Path) -> None:
    of = plan("default", corpus, 32, shard=2)
    census(loaded, corpus, of, tmp_path / "whole.json", watch=WATCH, most=6)

    class Killed(Exception):
        pass

    def kill(count: int, tokens: int) -> None:
        if count == 4:
            raise Killed

    with pytest.raises(Killed):
        census(loaded, corpus, of, tmp_path / "parts.json", watch=WATCH, most=6, told=kill)
    assert resumed(tmp_path / "parts.json", of)[1] == 2
    census(loaded, corpus, of, tmp_path / "parts.json", watch=WATCH, most=6)
    assert (tmp_path / "parts.json").read_bytes() == (tmp_path / "whole.json").read_bytes()


def test_tallies_of_shards_merge_to_the_same_bits_when_read_back() -> None:
    values = [0.1 * n * math.pi for n in range(9)]
    parts = []
    for begin in (0, 3, 6):
        part = Tally(3, {("l", 0, "x"): Numbers()})
        for which in range(begin, begin + 3):
            part.numbers["l", 0, "x"].add(values[which], which)
        parts.append(part)
    total, again = Tally(), Tally()
    for part in parts:
        total.merge(part)
        again = Tally.read(json.loads(json.dumps(again.json())))
        again.merge(Tally.read(json.loads(json.dumps(part.json()))))
    assert total.json() == again.json()
    assert total.numbers["l", 0, "x"].best == [(values[8], 8), (values[7], 7), (values[6], 6)]


@pytest.mark.parametrize("content", ["{", "[]", '{"format": "other", "plan": {}}'])
def test_a_file_of_something_else_is_not_overwritten(content: str, corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(content)
    with pytest.raises(UserError, match="give another --out"):
        resumed(tmp_path / "c.json", plan("default", corpus, 32))
    assert (tmp_path / "c.json").read_text() == content


def test_a_corpus_that_is_missing_or_too_short_is_refused(loaded: Any, corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no corpus"):
        plan("default", tmp_path / "none.txt", 32)
    corpus.write_text("Short.")
    with pytest.raises(UserError, match="shorter than one window"):
        census(loaded, corpus, plan("default", corpus, 32), tmp_path / "c.json")


def test_the_command_says_which_heads_are_highest(corpus: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from regard.cli.command import app

    asked = ["census", "default", str(corpus), "--out", str(tmp_path / "c.json"), "--window", "32", "--most", "2"]
    ran = CliRunner().invoke(app, [*asked, "--stat", "previous"])
    assert ran.exit_code == 0, ran.output
    assert "previous over 2 windows of 32 tokens" in ran.output and "decoder 0 head 0: mean" in ran.output
    assert "was not tallied" in str(CliRunner().invoke(app, [*asked, "--stat", "nosuch"]).exception)
