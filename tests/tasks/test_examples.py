"""The embedded examples run offline at once, and are small."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree as xml

import numpy as np
import pytest
import torch
from PIL import Image

from regard import cli
from regard.cli.examples import EXAMPLES, example, names
from regard.cli.reading import read_input
from regard.errors import UserError
from regard.hf.see import look
from regard.seq2seq.directory import opened
from regard.view.image import image

MOST_BYTES = 2 << 20
CHANNELS = ("red", "green", "blue")


@pytest.mark.parametrize("name", names())
def test_an_example_is_small_and_says_what_it_is(name: str) -> None:
    files = [path for path in (EXAMPLES / name).iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= MOST_BYTES
    card = (EXAMPLES / name / "README.md").read_text()
    assert "toy" in card and "scripts.tasks" in card


def test_the_sentiment_example_finds_the_words_that_count() -> None:
    folder, given = example("sentiment")
    loaded = opened(folder)
    trace = look(loaded, given, keep="qk")
    assert trace.answer is not None and trace.answer.text == "negative"
    assert trace.answer.confidence is not None and trace.answer.confidence > 0.9
    assert look(loaded, "the garden was bright .").answer.text == "positive"  # type: ignore[union-attr]
    assert look(loaded, "the garden was not bright .").answer.text == "negative"  # type: ignore[union-attr]


def test_the_caption_example_looks_at_the_shape_that_it_names() -> None:
    folder, given = example("caption")
    trace = look(opened(folder), read_input(given), keep="qk")
    assert trace.answer is not None and trace.answer.text == "red square , blue circle , green triangle , blue square"
    weights = trace.weights(trace.layers[0], 0)
    picture = torch.from_numpy(np.array(Image.open(given).convert("RGB"))).float()
    patches = picture.unfold(0, 8, 8).unfold(1, 8, 8).flatten(3).mean(-1).flatten(0, 1)
    for piece in trace.answer.pieces:
        if piece.text.strip() in CHANNELS:
            red, green, blue = patches[int(weights[piece.slot].argmax())]
            assert {"red": red, "green": green, "blue": blue}[piece.text.strip()] == max(red, green, blue)
    texts = "".join(xml.fromstring(image(trace, "svg")).itertext())
    assert "Word by word" in texts and texts.count("triangle") >= 3  # answer, row of the map, word over the picture


def test_the_command_shows_an_example(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["regard", "see", "--example", "sentiment", "the lesson was not dull ."])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 0 and "answer  positive" in capsys.readouterr().out


def test_an_example_that_is_not_there_lists_those_that_are() -> None:
    with pytest.raises(UserError, match=r"--example is one of .*sentiment.*, not 'no'"):
        example("no")
    assert Path(example("sentiment")[0]).is_dir()
