"""A token's way through the layers: the same shares in Python and in the page, as the paper's products give them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from regard.seeing.trace import TraceError
from regard.view import way
from regard.view.answers import Answers, unpacked
from regard.view.page import html
from tests.view import traces
from tests.view.browser import Open, why_not

needs_browser = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")


def test_rollout_is_the_product_of_half_attention_and_half_identity() -> None:
    trace = traces.decoder(12, 4, 6)
    found = way.rollout(trace, 2, 7)
    whole = torch.eye(12, dtype=torch.float64)
    for place in (2, 1, 0):
        mean = torch.stack([trace.weights(trace.layers[place], h).double() for h in range(6)]).mean(0)
        whole = whole @ (mean + torch.eye(12)) / 2
    assert torch.allclose(found[-1], whole[7], atol=1e-12)
    assert torch.allclose(found.sum(-1), torch.ones(3, dtype=torch.float64), atol=1e-6)


def test_a_layer_that_looks_at_other_tokens_has_no_way() -> None:
    trace = traces.translator(["a", "b"], ["c", "d", "e"])
    cross = next(at for at, layer in enumerate(trace.layers) if layer.query_axis != layer.key_axis)
    with pytest.raises(TraceError, match="other tokens"):
        way.rollout(trace, cross, 0)


def test_the_question_gives_what_rollout_gives() -> None:
    trace = traces.decoder(12, 4, 6)
    about, numbers = unpacked(Answers([("a", trace)]).answer("way", {"layer": "3", "head": "0", "row": "5"}))
    assert about == {"row": 5}
    assert torch.allclose(torch.tensor(numbers).view(4, 12), way.rollout(trace, 3, 5).float(), atol=1e-7)


@needs_browser
def test_the_page_shows_the_shares_of_rollout(opened: Open) -> None:
    trace = traces.decoder(12, 4, 6, text=traces.HOSTILE)
    page = opened(html(trace), "#layer=3&head=0&row=9&shape=way")
    shares = way.rollout(trace, 3, 9)
    steps = page.query_selector_all("#way .step")
    assert len(steps) == 4
    for step, wanted in zip(steps, shares):
        shown = [float(each.get_attribute("data-share")) for each in step.query_selector_all("button")]
        best = wanted.sort(descending=True).values[: len(shown)]
        assert torch.allclose(torch.tensor(shown).double(), best, atol=1e-6)
    assert "rollout" in page.inner_text("#way p")
    steps[2].query_selector_all("button")[-1].click()
    assert page.evaluate("regard.state.layer") == 1
    assert page.evaluate("regard.state.shape") == "way"


@needs_browser
def test_the_loss_of_each_token_stands_under_the_map_and_beside_its_row(opened: Open) -> None:
    trace = traces.decoder(12, 4, 6)
    (name,) = trace.axes
    losses = torch.arange(12.0)[None] / 3
    losses[0, 0] = torch.nan
    trace.axes = {name: replace(trace.axes[name], loss=losses)}
    page = opened(html(trace), "#layer=1&head=2&row=6")
    assert page.evaluate("[...regard.picture().losses(1)].slice(1)") == losses[0, 1:].tolist()
    assert "loss" in page.inner_text("#row-body")
    assert "2.00" in page.inner_text("#row-body")
