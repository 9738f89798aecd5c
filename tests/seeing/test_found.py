"""A statistic is one file: dropped into the folder, it is watched, lies in the Trace and is drawn under its title."""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console

import regard
from regard.errors import UserError
from regard.seeing import statistics
from regard.seeing.trace import Trace
from regard.view import terminal
from tests.hf.models import BY_NAME, feed

OLD = Path(__file__).parent / "files" / "trace_of_2026_11.safetensors"
FILE = '''
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from regard.statistic import Block, RowStatistic, View


@dataclass(frozen=True)
class EvenKeys(RowStatistic):
    """Σ_{j even} a_ij: mass on keys at even positions."""

    name: ClassVar[str] = "even"
    formula: ClassVar[str] = "Σ_{p_j even} a_ij"
    title: ClassVar[str] = "mass on even keys"
    order: ClassVar[int] = 15

    def of_rows(self, block: Block, view: View) -> Tensor:
        return (block.weights * (block.key.positions % 2 == 0)[:, None, None]).sum(-1)
'''


@pytest.fixture
def added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "even.py").write_text(FILE)
    monkeypatch.setattr(statistics, "__path__", [*statistics.__path__, str(tmp_path)])
    statistics.every.cache_clear()
    yield
    statistics.every.cache_clear()


def test_a_statistic_is_one_file(added: None, tmp_path: Path) -> None:
    assert [s.name for s in statistics.standard()][:3] == ["entropy", "even", "span"]
    assert statistics.named("even").label == "even"
    model, given = BY_NAME["llama"].build(), feed(BY_NAME["llama"])
    with torch.no_grad(), regard.attach(model) as trace:
        model(**given)
    trace.save(tmp_path / "one.safetensors")
    for seen in (trace, Trace.load(tmp_path / "one.safetensors")):
        assert seen.statistics["even"].title == "mass on even keys"
        assert len(seen.heads("even")) == 8
        page = StringIO()
        terminal.show(seen, Console(file=page, width=120), statistic="even")
        assert "mass on even keys  Σ_{p_j even} a_ij" in page.getvalue()


def test_every_statistic_is_found_once_and_says_what_it_is() -> None:
    names = (
        "entropy span max top mass sink special distance distances context own previous duplicate induction received"
    )
    assert list(statistics.every()) == [*names.split(), "overview"]
    for kind in statistics.every().values():
        assert kind.title and kind.formula and kind.unit and kind.__doc__
    assert statistics.named("top", k=3) == statistics.TopK(k=3)
    with pytest.raises(UserError, match="no statistic 'colour'; there are: entropy, span"):
        statistics.named("colour")


def test_titles_say_the_weighting() -> None:
    received = statistics.Received()
    assert received.titles() == ("attention received", "largest share received", "share of mass")
    weighted = "attention received, norm-weighted"
    assert received.norm().titles() == (weighted, weighted, "share of mass")


def test_a_trace_of_the_first_version_opens_with_its_titles() -> None:
    trace = Trace.load(OLD)
    assert len(trace.layers) == 2 and trace.layers[0].heads == [0, 1, 2][:2]
    assert trace.statistics["sink"].title == "mass on first tokens"
    assert trace.statistics["received"].head_title == "largest share received"
    weights = trace.weights(1, 1, batch=1)
    assert weights.shape == (9, 9)
    assert torch.allclose(
        weights[8, 2:], torch.tensor([0.0072, 0.0075, 0.4440, 0.0199, 0.0296, 0.2697, 0.2220]), atol=1e-4
    )
    assert torch.allclose(trace["entropy"][1]["rows"][1, 1, 8], torch.special.entr(weights[8]).sum(), atol=1e-5)
