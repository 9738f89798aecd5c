"""The viewer on 32,768 tokens and the one-file page on 512: how fast they open and answer. By hand: -m slow."""

from __future__ import annotations

import copy
import random
import time
from pathlib import Path
from typing import Any

import pytest

from regard.seeing.statistics import Entropy, Overview, standard
from regard.seeing.trace import Trace
from regard.view.answers import Answers
from regard.view.page import html
from regard.view.pyramid import tile_tokens
from regard.view.scene import scene
from tests.view import long
from tests.view.browser import why_not

REASON = why_not()
pytestmark = pytest.mark.slow


def gpt2_shaped(length: int, path: Path, **options: Any) -> Trace:
    """12 layers of 12 heads of width 64, whose layers hold the same numbers; from a file, mapped."""
    trace = long.trace(length, 1, 12, 64, **options)
    first = trace.layers[0]
    trace.layers = [copy.copy(first) for _ in range(12)]
    for index, layer in enumerate(trace.layers):
        layer.index, layer.name = index, f"h.{index}"
    trace.save(path)
    return Trace.load(path)


def test_a_long_trace_opens_at_once_and_answers_any_tile(tmp_path: Path) -> None:
    gpt2_shaped(32768, tmp_path / "t.safetensors", watch=(Overview(), Entropy()))
    begin = time.perf_counter()
    trace = Trace.load(tmp_path / "t.safetensors")
    answers = Answers([("long", trace)])
    page = html(answers.scene())
    assert time.perf_counter() - begin < 2 and len(page) < 5_000_000
    draw, seconds = random.Random(0), []
    for _ in range(120):
        zoom = draw.randrange(9)
        row = draw.randrange(-(-32768 // tile_tokens(zoom)))
        asked = {"layer": draw.randrange(12), "head": draw.randrange(12), "row": row, "key": draw.randrange(row + 1)}
        begin = time.perf_counter()
        answers.answer("tile", {name: str(value) for name, value in (asked | {"zr": zoom, "zk": zoom}).items()})
        seconds.append(time.perf_counter() - begin)
    seconds.sort()
    assert seconds[60] < 0.3 and seconds[-2] < 1, (seconds[60], seconds[-2])


@pytest.mark.skipif(REASON is not None, reason=str(REASON))
def test_a_file_of_512_tokens_and_all_heads_is_small_and_opens_at_once(browser: Any, tmp_path: Path) -> None:
    watch = [each for each in standard() if each.of == "weights"]
    trace = gpt2_shaped(512, tmp_path / "t.safetensors", watch=watch)
    file = tmp_path / "page.html"
    file.write_text(html(scene(trace)), encoding="utf-8")
    assert file.stat().st_size < 4_000_000
    page = browser.new_page()
    begin = time.perf_counter()
    page.goto(file.as_uri())
    page.wait_for_selector("body[data-ready=true]")
    assert time.perf_counter() - begin < 2
    page.close()
