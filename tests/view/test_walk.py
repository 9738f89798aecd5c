"""Finding, sorting, searching and walking back, in a real chromium, in a file and in the viewer."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from regard.view.finds import finds
from regard.view.page import html
from tests.view import long, traces
from tests.view.browser import Open, why_not
from tests.view.test_browser import shown
from tests.view.test_deep import Seen, settled, until, viewed  # noqa: F401
from tests.view.test_pyramid import dense

REASON = why_not()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))


def test_finds_are_the_heads_whose_score_is_clear() -> None:
    trace = traces.decoder(24, 4, 6)
    told = {find["label"]: find for find in finds(trace)}
    assert {"induction", "previous", "sink"} <= set(told)
    for label, find in told.items():
        scores = [float(layer.summaries[label][0, head]) for layer in trace.layers for head in range(6)]
        assert find["count"] == sum(score >= find["from"] for score in scores)
        assert [head["score"] for head in find["heads"]] == sorted(scores, reverse=True)[: len(find["heads"])]


def test_a_find_leads_to_its_head(opened: Open) -> None:
    trace = traces.decoder(24, 4, 6)
    page = opened(html(trace))
    best = next(find for find in finds(trace) if find["label"] == "previous")["heads"][0]
    page.locator(".find", has_text="previous token").locator("button").first.click()
    assert page.inner_text("#map-title") == f"Head {best['layer']}.{best['head']}"
    assert page.evaluate("window.regard.state.statistic") == "previous"


def test_sorted_heads_stand_in_the_order_of_the_statistic(opened: Open) -> None:
    trace = traces.decoder(12, 4, 6)
    page = opened(html(trace), "#grid=ranked&statistic=entropy")
    values = sorted((float(x) for layer in trace.layers for x in layer.summaries["entropy"][0]), reverse=True)
    assert page.locator(".rank .value").all_inner_texts() == [shown(value) for value in values]
    page.click(".flip")
    assert page.locator(".rank .value").all_inner_texts() == [shown(value) for value in values[::-1]]
    page.locator(".rank").nth(3).click()
    assert page.locator('.rank[aria-pressed="true"]').count() == 1


def test_a_grid_of_small_numbers_is_told_in_a_power_of_ten(opened: Open) -> None:
    trace = traces.decoder(12, 2, 2)
    for layer in trace.layers:
        layer.summaries = dict(layer.summaries) | {"induction": torch.full((1, 2), 0.00321, dtype=torch.float64)}
    page = opened(html(trace), "#statistic=induction")
    assert page.locator("#grid button").first.inner_text() == "3.21"
    assert "1e-3" in page.inner_text("#formula")


def test_search_goes_from_match_to_match(opened: Open) -> None:
    page = opened(html(traces.decoder(12, 1, 2, text=traces.SENTENCE)))
    page.fill("#search", "THE ver")
    assert page.inner_text("#search-said") == "1"
    page.press("#search", "Enter")
    assert page.evaluate("window.regard.state.row") == 6
    page.fill("#search", "e")
    page.press("#search", "Enter")
    first = page.evaluate("window.regard.state.row")
    page.press("#search", "Shift+Enter")
    assert page.evaluate("window.regard.state.row") < first
    page.fill("#search", "<b>")
    assert page.inner_text("#search-said") == "not in the text"


def test_who_looks_at_a_token_is_its_column(opened: Open) -> None:
    trace = traces.decoder(12, 2, 6, text=traces.SENTENCE)
    page = opened(html(trace), "#layer=0&head=3&row=4&by=lookers")
    assert "who looks at" in page.inner_text("#strip-key")
    strongest = int(trace.weights(0, 3)[:, 4].argmax())
    plain = page.locator(".token").nth(2).evaluate("x => x.style.backgroundColor")
    assert plain == "" and page.locator(".token").nth(strongest).evaluate("x => x.style.backgroundColor") != ""


def walk_two_links(page: Any) -> list[list[int]]:
    steps = []
    for _ in range(2):
        before = page.evaluate("[window.regard.state.layer, window.regard.state.row]")
        page.locator("#walk .find .head").first.click()
        page.wait_for_timeout(400)
        after = page.evaluate("[window.regard.state.layer, window.regard.state.row]")
        assert after[0] == before[0] - 1 and after[1] <= before[1]
        steps.append(after)
    return steps


def test_links_are_followed_into_the_layers_below_and_back(opened: Open) -> None:
    page = opened(html(traces.decoder(12, 3, 6, text=traces.SENTENCE)), "#layer=2&head=5&row=10")
    steps = walk_two_links(page)
    assert page.locator(".way li").count() == 2 and "trail=" in page.evaluate("location.hash")
    again = opened(html(traces.decoder(12, 3, 6, text=traces.SENTENCE)), page.evaluate("location.hash"))
    assert again.locator(".way li").count() == 2
    page.locator(".way li button").nth(1).click()
    assert page.evaluate("[window.regard.state.layer, window.regard.state.row]") == steps[0]
    assert page.locator(".way li").count() == 1
    page.keyboard.press("Escape")
    assert page.locator(".way li").count() == 0


def test_the_viewer_walks_along_exact_links(viewed: Seen) -> None:  # noqa: F811
    trace = long.trace(1200, layers=3)
    page = viewed(trace, address="#layer=2&head=0&row=1100")
    until(page, "document.querySelectorAll('#walk .find .head').length > 0")
    walk_two_links(page)
    until(page, "document.querySelectorAll('#walk .others .link').length > 1")
    layer, head, row = page.evaluate("[window.regard.state.layer, window.regard.state.head, window.regard.state.row]")
    pressed = page.locator('#walk .others .link[aria-pressed="true"] span').last.inner_text()
    weights = dense(trace, layer, head)[row].clone()
    weights[[0, row]] = 0
    assert pressed == shown(float(weights.max()))


def test_a_layer_shows_all_its_heads(viewed: Seen) -> None:  # noqa: F811
    page = viewed(long.trace(600, layers=2, heads=3), address="#layer=1&head=0&shape=layer")
    settled(page)
    assert page.locator("#siblings button").count() == 3
    page.locator("#siblings button").nth(2).click()
    assert page.inner_text("#map-title") == "Head 1.2" and page.locator("#canvas").is_visible()
