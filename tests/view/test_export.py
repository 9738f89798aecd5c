"""What is exported holds the exact numbers and escapes what tokens bring."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from regard.errors import UserError
from regard.view import sheet as sheets
from regard.view.image import image
from regard.view.page import html
from regard.view.sheet import sheet
from tests.view import long, traces
from tests.view.browser import Open, why_not
from tests.view.test_deep import Seen, settled, viewed  # noqa: F401
from tests.view.test_pyramid import dense

REASON = why_not()
in_browser = pytest.mark.skipif(REASON is not None, reason=str(REASON))


def test_a_sheet_of_heads_holds_every_number() -> None:
    trace = traces.decoder(12, 2, 3)
    lines = list(csv.DictReader(io.StringIO(sheet(trace))))
    assert len(lines) == 6
    assert float(lines[4]["entropy"]) == float(trace.layers[1].summaries["entropy"][0, 1])


def test_a_sheet_of_a_head_holds_every_weight_and_no_formula() -> None:
    trace = traces.decoder(5, 1, 1, text=["=SUM(A1)", "-1", 'a "quoted", word', "\n", "<script>"])
    lines = list(csv.DictReader(io.StringIO(sheet(trace, [(0, 0)]))))
    weights = trace.weights(0, 0)
    assert len(lines) == int((weights > 0).sum())
    for line in lines:
        assert float(line["weight"]) == float(weights[int(line["row"]), int(line["key"])])
        assert not line["key token"].startswith(("=", "-"))
    assert 'a "quoted", word' in {line["key token"] for line in lines}


def test_too_many_pairs_for_a_sheet_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sheets, "MOST_PAIRS", 100)
    with pytest.raises(UserError, match="144 pairs are too many"):
        sheet(traces.decoder(12, 1, 1), [(0, 0)])


def test_a_picture_is_written_as_pdf() -> None:
    assert image(traces.decoder(6, 1, 2), "pdf").startswith(b"%PDF")


def exported(page: Any, kind: str, folder: Path) -> bytes:
    page.evaluate("document.getElementById('export').open = true")
    with page.expect_download() as waiting:
        page.click(f"#export button[data-kind={kind}]")
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    assert path.suffix == f".{kind}"
    return path.read_bytes()


@in_browser
def test_what_is_shown_is_exported(opened: Open, tmp_path: Path) -> None:
    trace = traces.hostile()
    page = opened(html(trace), "#layer=1&head=0&row=5")
    weights = trace.weights(1, 0)
    told = json.loads(exported(page, "json", tmp_path))
    assert told["exact"] is True and len(told["cells"]) == 78
    for cell in told["cells"]:
        assert cell["value"] == pytest.approx(float(weights[cell["row"], cell["key"]]), rel=1e-6)
    lines = list(csv.reader(io.StringIO(exported(page, "csv", tmp_path).decode())))
    assert len(lines) == 79
    drawn = ElementTree.fromstring(exported(page, "svg", tmp_path))
    names = {each.tag.rsplit("}", 1)[-1] for each in drawn.iter()}
    assert names == {"svg", "rect", "text", "g", "title"}
    assert len(next(drawn.iter("{http://www.w3.org/2000/svg}g"))) == 78
    assert exported(page, "png", tmp_path).startswith(b"\x89PNG")


@in_browser
def test_a_part_of_a_long_input_is_exported_exactly(viewed: Seen, tmp_path: Path) -> None:  # noqa: F811
    trace = long.trace(2000)
    page = viewed(trace, address="#layer=0&head=1&at=1500,200,20,30")
    settled(page)
    told = json.loads(exported(page, "json", tmp_path))
    weights = dense(trace, 0, 1)
    assert told["exact"] is True and len(told["cells"]) == 600
    for cell in told["cells"]:
        assert cell["value"] == pytest.approx(float(weights[cell["row"], cell["key"]]), rel=2e-6)
