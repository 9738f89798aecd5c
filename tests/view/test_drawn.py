"""What a Trace writes and prints of itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import regard
from regard.seeing.trace import TraceError
from tests.view.traces import decoder


def test_a_trace_writes_its_page_and_pictures(tmp_path: Path) -> None:
    trace = decoder()
    trace.html(tmp_path / "one.html")
    trace.png(tmp_path / "one.png")
    trace.svg(tmp_path / "one.svg", heads=[(1, 0)])
    assert (tmp_path / "one.html").read_text().startswith("<!doctype html>")
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")
    assert "head 1.0" in (tmp_path / "one.svg").read_text().lower()
    with pytest.raises(TraceError, match="layer 99 was watched"):
        trace.png(tmp_path / "two.png", heads=[(99, 0)])
    with pytest.raises(TraceError, match="cannot write"):
        trace.html(tmp_path / "nowhere" / "one.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.html", "one.png", "one.svg"]


def test_frame_has_a_row_for_every_head_and_its_numbers() -> None:
    trace = decoder()
    frame = trace.frame()
    assert len(frame) == sum(len(layer.heads) for layer in trace.layers) * trace.batches
    for layer, head, value in trace.heads("entropy"):
        row = frame[(frame["module"] == layer.name) & (frame["head"] == head)]
        assert row["entropy"].mean() == pytest.approx(value, abs=1e-12)


def test_what_prints_is_short_and_what_is_asked_by_number_or_label_comes() -> None:
    trace = decoder()
    assert len(repr(trace)) < 200 and len(repr(trace.layers[0])) < 250 and "\n" not in repr(trace.layers)
    assert len(repr(trace.heads("entropy")[:3])) < 1000
    assert trace[trace.layers[0].index] is trace.layers[0]
    assert trace["entropy"][0] is trace.layers[0].results["entropy"]
    name, tokens = next(iter(trace.axes.items()))
    assert trace.tokens[name] == tokens.text[0]


def test_heads_asked_for_inside_the_block_are_those_of_now() -> None:
    loaded = regard.load()
    ids = loaded.tokenizer("The cat sat.", return_tensors="pt")["input_ids"]
    with torch.no_grad(), regard.attach(loaded.model) as trace:
        loaded.model(input_ids=ids)
        inside = [value for _, _, value in trace.heads("entropy")]
        assert trace.tokens and isinstance(loaded.model, nn.Module)
    assert inside and inside == [value for _, _, value in trace.heads("entropy")]
