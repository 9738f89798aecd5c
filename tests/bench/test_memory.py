"""`regard bench memory`: what it measures can fail, and does for a whole matrix of weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from regard.bench import memory, memory_plot
from regard.errors import UserError
from regard.zoo import CATALOGUE


def test_memory_grows_as_the_tokens_and_a_whole_matrix_of_weights_as_their_square(tmp_path: Path) -> None:
    names = ["delta", "window"]
    result = memory.run(names, [1024, 4096], tmp_path)
    rows = {row["mechanism"]: row for row in result["rows"]}
    assert [rows[name]["linear"] for name in names] == [True] * 2, rows
    assert not rows[memory.DENSE]["linear"] and rows[memory.DENSE]["growth"] > 1.7, rows[memory.DENSE]
    assert {path.name for path in tmp_path.iterdir()} >= {"delta-1024.json", "window-4096.json"}
    again = memory.run(names, [1024, 4096], tmp_path)
    assert again["rows"] == result["rows"]
    table = memory.table(result)
    assert table[0][-1] == "linear" and [line[-1] for line in table[1:]] == ["yes", "yes", "no"]
    memory_plot.plot(result, tmp_path / "memory.png")
    assert (tmp_path / "memory.png").stat().st_size > 1000


def test_every_mechanism_that_can_be_called_claims_linear_memory_or_says_that_it_does_not() -> None:
    claiming = set(memory.claiming())
    for card in CATALOGUE.values():
        callable_here = card.factory is not None or card.name.startswith("memory_as_")
        assert (card.name in claiming) == (callable_here and card.linear_memory), card.name
        assert not (card.linear_memory and any(sign in card.memory for sign in ("n²", "n (n"))), card.name


def test_growth_is_the_power_of_n() -> None:
    assert memory.growth({"10": {"peak_bytes": 100}, "20": {"peak_bytes": 400}}) == pytest.approx(2)
    assert memory.growth({"10": {"peak_bytes": 100}, "20": {"failed": "took longer"}}) is None
    many = 100 << 20
    assert memory.linear({"1": {"peak_bytes": many}, "4": {"peak_bytes": 4 * many}})
    assert not memory.linear({"1": {"peak_bytes": many}, "4": {"peak_bytes": 5 * many}})


def test_what_takes_too_long_says_so(tmp_path: Path) -> None:
    result = memory.run(["delta"], [64], tmp_path, seconds=0.01)
    assert result["rows"][0]["at"]["64"] == {"failed": "took longer than 0.01 s"} and not list(tmp_path.iterdir())
    assert memory.table(result)[1][2] == "took longer than 0.01 s"


def test_mistakes_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="lengths of at least 1 token"):
        memory.run(["delta"], [0], tmp_path)
    with pytest.raises(UserError, match="glimpse cannot be called"):
        memory.run(["glimpse"], [64], tmp_path)
    with pytest.raises(ValueError, match="did you mean 'delta'"):
        memory.run(["dleta"], [64], tmp_path)
