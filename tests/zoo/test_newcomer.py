"""The newcomer's path: one file of under 30 lines, one export, one row, and every shared test takes it."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torch

from regard import zoo
from regard.inputs import Inputs
from regard.text import parse
from tests.matrix import Row
from tests.zoo import newcomer, oracles, test_matrix


def softplus(x: Inputs) -> oracles.Found:
    q, k, v = oracles.qkv(x)
    a = torch.log1p(oracles.scaled(q, k).exp()) * oracles.cells(x)
    return oracles.mix(a, v), a


def test_a_mechanism_is_one_short_file_and_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [line for line in Path(newcomer.__file__).read_text().splitlines() if line.strip()]
    assert len(lines) < 30
    monkeypatch.setitem(zoo.CATALOGUE, "softplus", newcomer.CARDS[0])
    row = Row("softplus", softplus)
    assert parse("softplus & causal").name == "softplus & causal"
    for name, test in inspect.getmembers(test_matrix, inspect.isfunction):
        if name.startswith("test_") and "row" in inspect.signature(test).parameters:
            extra = {"strip_bytes": 700, "peak": (5.0, 1.0), "dtype": torch.float64, "monkeypatch": monkeypatch}
            wanted = {n: extra[n] for n in inspect.signature(test).parameters if n in extra}
            with monkeypatch.context():
                test(row, **wanted)
