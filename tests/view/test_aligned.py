"""Inputs that are not equally long are compared token by token, not place by place."""

from __future__ import annotations

import pytest
import torch

from regard.seeing.trace import Trace
from regard.view.aligned import cut, matched
from regard.view.difference import difference
from regard.view.page import html
from tests.view import traces
from tests.view.browser import Open, why_not
from tests.view.test_browser import shown

REASON = why_not()
LONGER = [*traces.SENTENCE[:3], " very", *traces.SENTENCE[3:]]


def both() -> tuple[Trace, Trace]:
    return traces.decoder(12, 2, 2, text=traces.SENTENCE), traces.decoder(13, 2, 2, text=LONGER)


def test_a_word_more_does_not_shift_the_rest() -> None:
    a, b = both()
    slots = matched(a, b)
    assert slots is not None
    assert slots[0]["decoder"] == list(range(12))
    assert slots[1]["decoder"] == [0, 1, 2, *range(4, 13)]
    kept = torch.tensor(slots[1]["decoder"])
    for head in range(2):
        expected = b.weights(1, head)[kept][:, kept]
        assert torch.equal(cut(b, slots[1]).weights(1, head), expected)


def test_the_difference_is_that_of_the_same_tokens_and_says_what_it_covers() -> None:
    a, b = both()
    told = difference(a, b)
    assert told["aligned"] and len(told["scenes"]) == 3
    assert "covers the 12 tokens of decoder (without 0 of the first and 1 of the second)" in told["why"]


def test_nothing_in_common_is_not_compared() -> None:
    a, b = traces.decoder(3, 1, 1, text=["a", "b", "c"]), traces.decoder(4, 1, 1, text=["w", "x", "y", "z"])
    assert matched(a, b) is None and not difference(a, b)["aligned"]


@pytest.mark.skipif(REASON is not None, reason=str(REASON))
def test_the_page_finds_the_same_token_in_every_view(opened: Open) -> None:
    a, b = both()
    page = opened(html(difference(a, b, names=("one", "two"))), "#layer=1&head=0&row=7&key=4")
    values = float(a.weights(1, 0)[7, 4]), float(b.weights(1, 0)[8, 5])
    told = page.inner_text("#map-readout")
    assert shown(values[0]) in told and f"two: {shown(values[1])}" in told
    page.click("#views button:has-text('two')")
    assert page.evaluate("[window.regard.state.row, window.regard.state.key]") == [8, 5]
    page.locator("#views button").nth(2).click()
    assert page.evaluate("[window.regard.state.row, window.regard.state.key]") == [7, 4]
    assert shown(values[0] - values[1]) in page.inner_text("#map-readout")
