"""The census: no family drops out of it, its verdicts are what its rows say, and a sample of it runs."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from scripts.census import page
from scripts.census.compare import Row, census_of
from scripts.census.families import classes_of, installed, written

PAGE = Path(__file__).parents[2] / "docs" / "models.md"


def on_page() -> dict[str, tuple[str, str]]:
    """family -> the first model that the page names, and its verdict."""
    verdicts: dict[str, tuple[str, str]] = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) == 9 and cells[1] not in ("family", "---"):
            verdicts.setdefault(cells[1], (cells[2], cells[3]))
    return verdicts


EXACT = sorted((family, model) for family, (model, verdict) in on_page().items() if verdict == "exact")
SAMPLE = random.Random(23).sample(EXACT, len(EXACT) // 10)  # a tenth


def test_every_installed_family_is_written_down_and_on_the_page() -> None:
    assert written() == installed()
    assert set(on_page()) == set(written())


@pytest.mark.parametrize("family,model", SAMPLE)
def test_what_the_page_calls_exact_is_exact(family: str, model: str) -> None:
    row = census_of(family, next(kind for kind in classes_of(family) if kind.__name__ == model))
    if "library but it was not found" in row.problem:
        pytest.skip(f"{family} needs a library that regard does not install: {row.problem}")
    assert page.verdict(row.as_json()) == "exact", row


@pytest.mark.parametrize(
    "changes,word",
    [
        ({"seen": {"made": 2}}, "exact"),
        ({"seen": {"made": 2}, "error": 1e-3}, "wrong"),
        ({"seen": {"made": 2}, "same_bits": False}, "wrong"),
        ({"seen": {"made": 2}, "unseen": {"a": "why"}}, "partly"),
        ({"unseen": {"a": "why"}}, "refused"),
        ({"problem": "refused: it asks for a name"}, "refused"),
        ({}, "no attention"),
        ({"could_run": False, "problem": "not built"}, "not run"),
    ],
)
def test_verdicts(changes: dict[str, Any], word: str) -> None:
    row = Row("family", "Model", could_run=True)
    assert page.verdict({**row.as_json(), **changes}) == word
