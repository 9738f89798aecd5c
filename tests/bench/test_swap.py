"""`regard bench swap`'s quality: the recall model in transformers, its texts, and what is counted as right."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import regard
from regard.bench import swap as bench
from regard.bench.recall_task import KEYS, Recaller
from regard.bench.swap import asking, picture, quality
from regard.bench.swap.recaller import as_transformers
from regard.bench.swap.task import Task, passage_tasks, text_task
from regard.errors import UserError
from regard.swap.policies import every

TEXT = "The cat sat on the mat and looked at the other cat, which sat on another mat. " * 90
SMALL = asking.Asking(pairs=12, about=3, before=12, after=4)


def small() -> Task:
    torch.manual_seed(0)
    tokens, wanted = SMALL.batch(3, torch.Generator().manual_seed(0))
    return Task(as_transformers(Recaller("causal")), tokens, wanted[:, SMALL.before :], SMALL.prompt, 8, 1)


def test_questions_are_about_the_pairs_that_the_prompt_has_asked_about() -> None:
    tokens, wanted = SMALL.batch(50, torch.Generator().manual_seed(0))
    assert tokens.shape == (50, 24 + 16) and wanted.shape == (50, 16) and SMALL.prompt == 36
    for row, answers in zip(tokens.tolist(), wanted.tolist()):
        told = dict(zip(row[0:24:2], row[1:24:2]))
        assert len(set(row[24:])) <= 3 and [told[key] - KEYS for key in row[24:]] == answers


def test_the_transformers_model_computes_what_the_recall_bench_trains() -> None:
    torch.manual_seed(0)
    source = Recaller("causal")
    model = as_transformers(source)
    tokens, _ = SMALL.batch(2, torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = source(tokens)
        torch.testing.assert_close(model(tokens).logits, wanted, atol=1e-5, rtol=1e-5)
        cache = regard.cache(model, "h2o(1.0)")
        parts = [model(tokens[:, :30], past_key_values=cache).logits]
        parts += [model(tokens[:, at : at + 1], past_key_values=cache).logits for at in range(30, 40)]
    torch.testing.assert_close(torch.cat(parts, 1), wanted, atol=1e-4, rtol=1e-4)


def test_a_budget_of_everything_says_what_the_model_itself_says() -> None:
    task = small()
    rows = {row["attention"]: row for row in quality.task_rows([task], [1.0])}
    assert rows.keys() >= {*every(), "topk", "window", "window | sinks", "linear_recurrent", "gla", "delta"}
    for name in every():
        assert rows[name]["bits"] == pytest.approx(rows["own"]["bits"], abs=1e-4) and rows[name]["keeps"] == 1


def test_what_is_kept_is_measured_and_what_is_lost_is_counted() -> None:
    task = small()
    rows = {row["attention"]: row for row in quality.task_rows([task], [0.25])}
    assert rows["h2o"]["keeps"] == rows["sinks"]["keeps"] == 9 / 36
    assert rows["duo"]["keeps"] == pytest.approx((1 + 3 * 12 / 36) / 4)
    assert rows["sinks"]["bits"] != pytest.approx(rows["own"]["bits"], abs=1e-4)


def test_accuracy_and_bits_by_hand() -> None:
    logits = torch.full((2, 2, 3), 0.0)
    logits[0, :, 1] = logits[1, 0, 2] = logits[1, 1, 0] = math.log(2.0)
    wanted = torch.tensor([[1, 1], [2, 1]])
    task = Task(None, wanted, wanted, 0)
    said = quality.scored([task], [logits])
    assert said.accuracy == 0.75 and said.bits == pytest.approx((3 * 1.0 + 2.0) / 4)
    assert quality.scored([Task(None, wanted, wanted, 0, whole=True)], [logits]).accuracy == 0.5


def test_a_texts_blocks_and_a_passages_last_word() -> None:
    loaded = regard.load()
    task = text_task(loaded, TEXT)
    assert task.tokens.shape[1] == 512 and torch.equal(task.tokens[:, 449:], task.wanted[:, :-1])
    line = json.dumps({"context": TEXT[:400].rsplit(" ", 1)[0], "continuation": "another"})
    (one,) = passage_tasks(loaded, f"{line}\n", 3)
    assert one.whole and loaded.tokenizer.decode(one.wanted[0]) == " another"
    assert 0 < one.prompt <= one.tokens.shape[1] - 16


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda loaded: text_task(loaded, "Too short."), "513 are needed"),
        (lambda loaded: passage_tasks(loaded, "{}", 3), "line 1"),
        (lambda loaded: passage_tasks(loaded, '{"context": "a b", "continuation": "c"}', 3), "64 tokens"),
        (lambda loaded: picture.check(Path("a.txt"), ["quality"]), "ends in .png"),
        (lambda loaded: picture.check(Path("a.png"), ["cache"]), "add quality"),
        (lambda loaded: bench.run(["speed"]), "cache, window, statistics, quality"),
        (lambda loaded: bench.run(["cache"], budget=1.5), "budget above 0 and below 1"),
    ],
)
def test_a_mistake_is_one_sentence(make: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        make(regard.load())


def test_the_part_gives_rows_a_table_and_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "TEXTS", 2)
    for name in ("AGAIN", "FIRST"):
        monkeypatch.setattr(asking, name, SMALL)
    result = bench.run(["quality"], sources=quality.Sources(steps=2))
    rows = result["quality"]
    assert {row["task"] for row in rows} == {"recall, asked again", "recall, asked first"}
    assert all(0 <= row["accuracy"] <= 1 and row["bits"] > 0 for row in rows)
    assert bench.table(result)[1] == ["task", "attention", "form", "budget", "keeps", "accuracy", "bits"]
    picture.plot(rows, tmp_path / "quality.png")
    assert (tmp_path / "quality.png").stat().st_size > 5000
