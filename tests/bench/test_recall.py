"""`regard bench recall` in a tiny setting: the task, every mixer, resuming, and the table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from regard.bench import recall, recall_plot
from regard.bench.recall_task import DEFAULT, KEYS, VALUES, Recaller, batch
from regard.errors import UserError


def test_every_question_was_answered_in_the_text() -> None:
    tokens, wanted = batch(5, 7, torch.Generator().manual_seed(0))
    assert tokens.shape == (7, 15) and wanted.shape == (7, 5)
    for row, answers in zip(tokens.tolist(), wanted.tolist()):
        told = dict(zip(row[0:10:2], row[1:10:2]))
        assert len(told) == 5 and max(told) < KEYS
        assert [told[key] - KEYS for key in row[10:]] == answers


@pytest.mark.parametrize("name", DEFAULT)
def test_every_mixer_is_causal_and_learns_something(name: str) -> None:
    torch.manual_seed(0)
    model = Recaller(name)
    tokens, _ = batch(2, 2, torch.Generator().manual_seed(0))
    out = model(tokens)
    changed = tokens.clone()
    changed[:, 4:] = 0
    torch.testing.assert_close(model(changed)[:, :4], out[:, :4], atol=1e-4, rtol=1e-4)
    assert out.shape == (2, 6, VALUES)
    out.square().mean().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())


SMALL = recall.Budget(pairs=(1, 2), beyond=(3,), steps=2)


def test_results_are_kept_and_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recall, "TESTED", 8)
    said: list[str] = []
    result = recall.run(["retention", "window(2)"], SMALL, tmp_path, said.append)
    assert [row["steps"] for row in result["rows"]] == [2, 2] and len(said) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"retention.json", "window-2.json"}
    monkeypatch.setattr(recall, "train", lambda *given: pytest.fail("trained again"))
    again = recall.run(["retention", "window(2)"], SMALL, tmp_path)
    assert again["rows"] == result["rows"] == json.loads(json.dumps(result["rows"]))
    table = recall.table(result)
    assert table[0][:4] == ["mechanism", "3 tokens", "6 tokens", "9 tokens (not trained on)"] and len(table) == 3
    assert [line[-1] for line in table[1:]] == ["the last step"] * 2
    recall_plot.plot(result, tmp_path / "recall.png")
    assert (tmp_path / "recall.png").stat().st_size > 1000


def test_the_same_steps_give_the_same_numbers_whatever_the_clock_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recall, "TESTED", 64)
    first = recall.train("causal", recall.Budget((1, 2), (), 5))
    clock = iter(range(0, 10**9, 3600))
    monkeypatch.setattr(recall, "perf_counter", lambda: next(clock))
    again = recall.train("causal", recall.Budget((1, 2), (), 5))
    assert again["accuracy"] == first["accuracy"] and (again["steps"], again["ended"]) == (5, "steps")


def test_a_limit_of_minutes_is_said_in_the_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recall, "TESTED", 8)
    result = recall.run(["causal"], recall.Budget((1,), (), 50, minutes=1e-9), tmp_path)
    assert result["rows"][0]["steps"] == 1 and recall.table(result)[1][-1] == "the limit of minutes"


def test_a_solved_task_ends_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recall, "EVERY", 2)
    monkeypatch.setattr(recall, "SOLVED", 0.0)
    assert recall.train("window(2)", recall.Budget((1,), (), 50))["ended"] == "solved"


def test_mistakes_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least 1 step"):
        recall.Budget(steps=0)
    with pytest.raises(UserError, match="leaves no time to train"):
        recall.Budget(minutes=0)
    with pytest.raises(UserError, match="some mechanisms"):
        recall.run([], SMALL, tmp_path)
    with pytest.raises(UserError, match="1 to 64 pairs"):
        recall.run(["causal"], recall.Budget((65,), (), 1), tmp_path)
