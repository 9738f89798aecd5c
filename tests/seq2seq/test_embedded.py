"""The embedded translator: small, exact on text it never saw, its attention where the number is said."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

import regard
from regard import cli
from regard.seq2seq.beam import Search
from regard.seq2seq.corpus import Pairs
from regard.seq2seq.directory import EMBEDDED
from regard.seq2seq.translate import translations
from scripts.make_numbers import pairs
from scripts.number_words import aligned
from scripts.pack_translator import exact, mass

SEED = 2026  # training had 1 and 2


@pytest.mark.parametrize(
    ("source", "target", "wanted"),
    [
        ("deux cent vingt et un", "two hundred and twenty-one", {0: [0, 1], 1: [0, 1], 3: [2, 3, 4]}),
        ("mille trois", "one thousand and three", {0: [0], 1: [0], 3: [1]}),
        ("zweihundert", "two hundred", {0: [0], 1: [0]}),
        ("mardi 3 mai 1988", "Tuesday, May 3, 1988", {2: [1], 3: [3]}),
        ("le premier mai", "the first of May", {1: [1]}),
    ],
)
def test_the_right_alignment_of_a_number(source: str, target: str, wanted: dict[int, list[int]]) -> None:
    assert aligned(source.split(), target.split()) == wanted


def test_it_translates_what_it_never_saw_and_looks_where_the_number_is_said() -> None:
    text = Pairs(*map(list, zip(*islice(pairs(SEED), 40))))
    made = translations(None, text.source, Search(5), align=True)
    assert exact(made, text) >= 0.98
    assert mass(made)[0] >= 0.9


def test_it_is_small_and_says_what_it_is() -> None:
    assert sum(path.stat().st_size for path in EMBEDDED.iterdir()) <= 2_000_000
    said = (EMBEDDED / "README.md").read_text(encoding="utf-8")
    assert "license: mit" in said and "exact translations" in said


def test_no_model_is_the_embedded_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def printed(*words: str) -> list[str]:
        monkeypatch.setattr("sys.argv", ["regard", "translate", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert not ended.value.code
        return capsys.readouterr().out.splitlines()

    assert regard.translate(None, "le trois mai") == "the third of May"
    assert printed("mardi 3 mai 1988") == ["Tuesday, May 3, 1988"]
    (tmp_path / "text").write_text("treizième\n", encoding="utf-8")
    assert printed(f"@{tmp_path / 'text'}") == ["thirteenth"]
    assert len(printed()) == 4
