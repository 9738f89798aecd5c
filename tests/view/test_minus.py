"""A − B of long Traces, cell by cell: exact, aligned by token, with the zoom kept between the views."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import pytest
import torch
from torch import Tensor

from regard.seeing.trace import Trace
from regard.view.answers import Answers, unpacked
from regard.view.minus import Minus
from tests.view import long
from tests.view.browser import why_not
from tests.view.test_deep import settled, viewed  # noqa: F401  (a fixture)

NEW = 100  # where B has a word more


@lru_cache(maxsize=2)
def pair(length: int = 700) -> tuple[Trace, Trace]:
    words = [f" w{i}" for i in range(length)]
    found = []
    for width, text in ((8, words), (12, [*words[:NEW], " NEW", *words[NEW:]])):
        trace = long.trace(len(text), width=width)
        trace.axes = {name: replace(tokens, text=[text]) for name, tokens in trace.axes.items()}
        found.append(trace)
    return found[0], found[1]


def dense(head: int) -> Tensor:
    a, b = (trace.weights(trace.layers[0], head) for trace in pair())
    kept = [slot for slot in range(b.shape[0]) if slot != NEW]
    return a - b[kept][:, kept]


def test_slots_are_the_tokens_that_both_have() -> None:
    made = Minus.between(*pair())
    assert made is not None and made.why is not None and "without 0 of the first and 1 of the second" in made.why
    assert made.slots[1]["decoder"] == [slot for slot in range(701) if slot != NEW]
    part = made.weights(made.layers[0], 1, slice(90, 120), slice(0, 110))
    assert torch.allclose(part, dense(1)[90:120, :110], atol=1e-6)


@pytest.mark.parametrize("zoom", [(0, 0), (2, 2), (3, 1)])
def test_tiles_are_the_differences_pooled(zoom: tuple[int, int]) -> None:
    answers = Answers([(name, trace) for name, trace in zip("ab", pair())])
    fields = {"trace": "2", "layer": "0", "head": "1", "row": "0", "key": "0", "zr": str(zoom[0]), "zk": str(zoom[1])}
    sides = [1 << z for z in zoom]
    for which in ("mean", "max"):
        about, numbers = unpacked(answers.answer("tile", fields | {"which": which}))
        cells = torch.tensor(numbers[: about["rows"] * about["keys"]]).view(about["rows"], about["keys"])
        whole = dense(1)
        for r, k in ((0, 0), (about["rows"] - 1, about["keys"] - 1), (about["rows"] // 2, about["keys"] // 3)):
            part = whole[r * sides[0] : (r + 1) * sides[0], k * sides[1] : (k + 1) * sides[1]].flatten()
            wanted = part.mean() if which == "mean" else part[part.abs().argmax()]
            assert abs(float(cells[r, k]) - float(wanted)) < 1e-6


def test_a_row_of_the_difference_is_exact() -> None:
    answers = Answers([(name, trace) for name, trace in zip("ab", pair())])
    _, numbers = unpacked(answers.answer("row", {"trace": "2", "layer": "0", "head": "0", "row": "333"}))
    assert torch.allclose(torch.tensor(numbers).nan_to_num(0), dense(0)[333], atol=1e-7)


def test_other_heads_cannot_be_subtracted() -> None:
    assert Minus.between(long.trace(40), long.trace(40, heads=3)) is None
    assert len(Answers([("a", long.trace(40)), ("b", long.trace(40, heads=3))]).names) == 2


@pytest.mark.skipif(why_not() is not None, reason=why_not() or "")
def test_zoom_stays_locked_while_the_view_changes(viewed: Any) -> None:  # noqa: F811
    page = viewed(*pair(), address="&trace=2#view=0&layer=0&head=1&row=300&key=280&at=290,270,32,32")
    assert page.eval_on_selector_all("#views button", "(x) => x.map((b) => b.textContent)") == [
        "trace 0",
        "trace 1",
        "trace 0 − trace 1",
    ]
    page.click("#views button >> nth=1")
    settled(page)
    part = page.evaluate("regard.current().view")
    assert (part["row"], part["key"], part["rows"]) == (291, 271, 32), "the token moved by the word that B has more"
    assert (page.evaluate("regard.state.row"), page.evaluate("regard.state.key")) == (301, 281)
    page.click("#views button >> nth=2")
    settled(page)
    part = page.evaluate("regard.current().view")
    assert (part["row"], part["key"], part["rows"]) == (290, 270, 32)
    shown = page.evaluate("regard.picture().weight(0, 1, 300, 280, 'max').value")
    assert abs(shown - float(dense(1)[300, 280])) < 1e-6
