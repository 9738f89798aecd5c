"""What a Trace writes and prints of itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import regard
from regard.errors import UserError
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


def test_markdown_has_a_row_for_every_head_and_its_numbers(tmp_path: Path) -> None:
    trace = decoder()
    head, rule, *rows = trace.markdown(tmp_path / "one.md").splitlines()
    assert (tmp_path / "one.md").read_text() == trace.markdown()
    cells = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in (head, *rows)]
    assert len(rows) == sum(len(layer.heads) for layer in trace.layers) and set(rule) <= set("|-: ")
    assert {len(row) for row in cells} == {2 + len(trace.statistics)}
    column = cells[0].index("entropy (nats)")
    for (layer, number, value), row in zip(trace.heads("entropy"), cells[1:], strict=True):
        assert row[:2] == [layer.title, str(number)] and float(row[column]) == pytest.approx(value, rel=5e-3)


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


def test_small_maps_and_lines_are_drawn(tmp_path: Path) -> None:
    trace = decoder(12, 3, 4)
    trace.svg(tmp_path / "maps.svg", shape="maps")
    trace.svg(tmp_path / "lines.svg", shape="lines", heads=[(1, 0), (1, 2)])
    maps, lines = ((tmp_path / f"{name}.svg").read_text() for name in ("maps", "lines"))
    assert maps.count("<image") == 3 * 4 + 1  # a map each, and the legend's ramp
    assert "All heads" in maps and "1.0" in lines and "1.2" in lines
    weights = [trace.weights(1, head) for head in (0, 2)]  # one of 1 is opaque and needs no attribute
    strong = sum(int(((each >= 0.02) & (each < 0.999)).sum()) for each in weights)
    assert lines.count("stroke-opacity") >= strong
    with pytest.raises(UserError, match="there is no shape 'circles' of a picture; there are: heads, maps, lines"):
        trace.png(tmp_path / "no.png", shape="circles")
