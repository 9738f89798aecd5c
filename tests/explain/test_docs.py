"""docs/mechanisms/ says what the catalogue says: generated pages are not stale."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from regard.explain.docs import page, pages
from regard.zoo import CATALOGUE

FOLDER = Path(__file__).parents[2] / "docs" / "mechanisms"
NUMBER = re.compile(r"-?\d+\.\d+")


def words(text: str) -> str:
    """The text without its decimals and their spacing, which may differ in the last digit from machine to machine."""
    return re.sub(r"[ ]+", " ", NUMBER.sub("#", text))


@pytest.mark.parametrize("name", CATALOGUE)
def test_page_is_not_stale(name: str) -> None:
    path = FOLDER / f"{name}.md"
    assert path.exists(), f"docs/mechanisms/{name}.md is missing; run python -m regard.explain.docs"
    written, made = path.read_text("utf-8"), page(CATALOGUE[name])
    assert words(written) == words(made), f"{path.name} is stale; run python -m regard.explain.docs"
    numbers = [list(map(float, NUMBER.findall(text))) for text in (written, made)]
    assert numbers[0] == pytest.approx(numbers[1], abs=0.011), (
        f"{path.name} is stale; run python -m regard.explain.docs"
    )


def test_no_page_is_left_over_and_all_are_listed() -> None:
    index = (FOLDER / "README.md").read_text("utf-8")
    assert {path.name for path in FOLDER.glob("*.md")} == {f"{name}.md" for name in CATALOGUE} | {"README.md"}
    assert all(f"]({name}.md)" in index for name in CATALOGUE)


def test_index_is_not_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regard.explain.docs.page", lambda card: "")
    assert pages()["README.md"] == (FOLDER / "README.md").read_text("utf-8")
