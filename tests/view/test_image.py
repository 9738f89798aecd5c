"""Image files: they decode, are not blank, are the same every time, and hold text as text."""

import builtins
import copy
import io
import subprocess
import sys
import xml.etree.ElementTree as xml
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from regard.hf.media import outline
from regard.seeing.trace import TraceError
from regard.view import colour, read
from regard.view.difference import difference
from regard.view.image import image
from regard.view.scene import scene
from regard.view.words import tag
from tests.view import traces

SVG = "{http://www.w3.org/2000/svg}"


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


@pytest.mark.parametrize(
    "make",
    [
        lambda: traces.decoder(12, 4, 6, text=traces.SENTENCE),
        lambda: traces.decoder(200, 2, 12),
        lambda: traces.translator(["Ein", "Hund", "</s>"], ["<s>", "A", "dog"]),
        traces.image,
        lambda: traces.decoder(1, 1, 1),
        traces.hostile,
    ],
    ids=["sentence", "pooled", "cross", "image", "one token", "hostile"],
)
def test_a_png_decodes_and_is_not_blank(make: object) -> None:
    found = pixels(image(make(), dpi=60))  # type: ignore[operator]
    assert found.shape[0] > 100 and found.shape[1] > 300
    assert len(np.unique(found.reshape(-1, 3), axis=0)) > 20


def test_a_png_shows_the_colours_of_the_weights() -> None:
    trace = traces.decoder(12, 1, 2)
    found = pixels(image(trace, heads=[(0, 1)], dpi=100)).reshape(-1, 3)
    weights = trace.weights(0, 1).numpy()
    seen = {tuple(x) for x in np.unique(found, axis=0).tolist()}
    drawn = colour.of(colour.sequential(), colour.log_place(weights))
    for row in range(12):
        assert tuple(drawn[row, 0].tolist()) in seen


def test_the_same_trace_gives_the_same_bytes() -> None:
    trace = traces.decoder(12, 2, 2)
    for kind in ("png", "svg"):
        assert image(trace, kind, dpi=50) == image(trace, kind, dpi=50), kind


def test_an_svg_holds_tokens_as_text_and_the_map_as_an_image() -> None:
    root = xml.fromstring(image(traces.decoder(12, 2, 2, text=traces.SENTENCE), "svg"))
    texts = [element.text for element in root.iter(f"{SVG}text")]
    for word in traces.SENTENCE:
        assert word.strip() in texts
    assert any(
        element.get("{http://www.w3.org/1999/xlink}href", "").startswith("data:image/png")
        for element in root.iter(f"{SVG}image")
    )


def test_no_element_of_an_svg_comes_from_a_token() -> None:
    plain = xml.fromstring(image(traces.decoder(len(traces.HOSTILE), 2, 2), "svg"))
    root = xml.fromstring(image(traces.hostile(), "svg"))
    names = {element.tag for element in root.iter()}
    assert names <= {element.tag for element in plain.iter()}
    assert f"{SVG}script" not in names
    texts = "".join(element.text or "" for element in root.iter(f"{SVG}text"))
    assert "<script>" in texts and "$\\frac{1}{2}" in texts
    drawn = scene(traces.hostile())
    assert all(tag(t, 14) in texts for t in drawn["axes"]["decoder"]["text"])


def test_several_heads_and_comparisons_are_drawn() -> None:
    trace = traces.decoder(8, 2, 2)
    one, two = (pixels(image(trace, heads=heads, dpi=40)) for heads in ([(0, 0)], [(0, 0), (1, 1)]))
    assert two.shape[1] > one.shape[1]
    both = difference(trace, traces.decoder(8, 2, 2, seed=5))
    assert pixels(image(both, dpi=40)).shape[0] > 2 * one.shape[0]


def test_what_was_not_watched_is_refused() -> None:
    trace = traces.decoder(8, 2, 2)
    with pytest.raises(TraceError, match="head 9 of layer 'decoder 0' was not watched"):
        image(trace, heads=[(0, 9)])
    with pytest.raises(TraceError, match="'beauty' was not watched"):
        image(trace, statistic="beauty")
    with pytest.raises(ValueError, match="cannot draw 'gif'; choose one of png, svg, pdf"):
        image(trace, "gif")


def test_a_missing_matplotlib_names_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: object, **more: object) -> object:
        if name.split(".")[0] == "matplotlib":
            raise ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib")
        return real(name, *args, **more)  # type: ignore[arg-type]

    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr("importlib.import_module", lambda name: refuse(name))
    with pytest.raises(ImportError, match=r"drawing image files needs matplotlib: pip install 'regard\[view\]'"):
        image(traces.decoder(4, 1, 1))


def test_drawing_leaves_matplotlib_as_it_was() -> None:
    program = (
        "import sys, matplotlib\n"
        "before = matplotlib.rcParams.copy()\n"
        "from tests.view import traces\n"
        "from regard.view.image import image\n"
        "image(traces.decoder(4, 1, 1), dpi=40)\n"
        "assert matplotlib.rcParams.copy() == before\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])


def test_the_legend_says_real_values() -> None:
    drawn = scene(traces.decoder(12, 2, 2))
    texts = [element.text for element in xml.fromstring(image(drawn, "svg")).iter(f"{SVG}text")]
    assert {"≤ 0.0001", "0.001", "0.01", "0.1", "1"} <= set(texts)
    about = read.statistic(drawn)
    assert about is not None and about["head_title"] in " ".join(text or "" for text in texts)


def test_a_sound_has_its_outline_and_its_seconds_under_the_map() -> None:
    heard = copy.copy(traces.decoder(60, 1, 2))
    wave = outline(torch.sin(torch.arange(48_000) / 9), 48_000)
    bands = torch.full((1, 48, 60), 128, dtype=torch.uint8)
    tokens = replace(heard.axes["decoder"], kind="frames", seconds=3.0, wave=wave, spectrogram=bands)
    heard.axes = {"decoder": tokens}
    texts = [part.text for part in xml.fromstring(image(heard, "svg")).iter(f"{SVG}text")]
    assert {"sound", "mel bands"} <= set(texts) and {"0 s", "1 s", "2 s", "3 s"} <= set(texts)
    with_sound, without = pixels(image(heard, dpi=60)), pixels(image(traces.decoder(60, 1, 2), dpi=60))
    assert with_sound.shape[0] > without.shape[0]
