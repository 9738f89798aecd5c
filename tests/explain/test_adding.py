"""docs/adding-a-mechanism.md does what it says: its two files, which are discovered, and every shared test on them."""

from __future__ import annotations

import inspect
import itertools
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import regard
from regard import zoo
from regard.explain import explain
from tests.matrix import Row, discovered
from tests.zoo import rows, test_matrix

PAGE = Path(__file__).parents[2] / "docs" / "adding-a-mechanism.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
FILE, ROW, USE = BLOCKS


@pytest.fixture
def row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Row]:
    """The page's mechanism, its file where the catalogue looks for files, enrolled by its row."""
    (tmp_path / "laplace.py").write_text(FILE, "utf-8")
    monkeypatch.setattr(zoo, "__path__", [*zoo.__path__, str(tmp_path)])
    monkeypatch.setitem(zoo.CATALOGUE, "laplace", zoo.discovered()["laplace"])
    folder = tmp_path / "rows"
    folder.mkdir()
    (folder / "laplace.py").write_text(ROW, "utf-8")
    monkeypatch.setattr(rows, "__path__", [str(folder)])
    (made,) = discovered(folder)
    yield made
    sys.modules.pop("tests.zoo.rows.laplace")
    sys.modules.pop("regard.zoo.laplace")


def shared() -> Iterator[tuple[Callable[..., None], dict[str, Any]]]:
    """Every shared test of a row, with every combination of its other parameters."""
    for name, test in vars(test_matrix).items():
        if not name.startswith("test_") or "row" not in inspect.signature(test).parameters:
            continue
        marks = [m.args for m in getattr(test, "pytestmark", []) if m.name == "parametrize" and m.args[0] != "row"]
        for values in itertools.product(*(given for _, given in marks)):
            yield test, dict(zip((of for of, _ in marks), values))


@pytest.mark.parametrize(("test", "given"), list(shared()), ids=lambda given: getattr(given, "__name__", str(given)))
def test_every_shared_test_takes_the_new_row(
    test: Callable[..., None], given: dict[str, Any], row: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {"row": row, "monkeypatch": monkeypatch}
    test(**{name: value for name, value in wanted.items() if name in inspect.signature(test).parameters}, **given)


def test_new_mechanism_is_explained_and_has_a_text_form(row: Row) -> None:
    made = explain("laplace", "a b c")
    assert made.equation == "s = -‖q - k‖₁ / w"
    assert next(step for step in made.steps if step.name == "scores").equation.startswith("s_ij = -‖q_i - k_j‖₁ / w")
    assert "laplace(width=2.0) & causal" in USE
    q = k = v = torch.randn(1, 2, 5, 4, generator=torch.Generator().manual_seed(0))
    out = regard.attention(q, k, v, "laplace(width=2.0) & causal")
    distance = torch.cdist(q, k, p=1.0) / 2.0
    later = torch.ones(5, 5).triu(1).bool()
    wanted = (-distance).masked_fill(later, -float("inf")).softmax(-1) @ v
    torch.testing.assert_close(out, wanted, atol=1e-5, rtol=1e-5)


def test_page_keeps_its_promises() -> None:
    lines = [line for line in FILE.splitlines() if line.strip()]
    assert len(lines) < 30
    assert "laplace" not in zoo.CATALOGUE
