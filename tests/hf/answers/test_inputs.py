"""Pictures and sounds as people have them: of another rate, stereo, grey, with alpha, tiny or very wide."""

from __future__ import annotations

import math
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import regard
from regard.cli.reading import read_input
from regard.errors import UserError
from regard.hf.load import Loaded
from regard.hf.see import answer, look
from regard.hf.sound import fitted, resampled
from tests.hf.answers.toys import model, processor, tokenizer


def a_tone(rate: int, seconds: float = 0.5, pitch: float = 440.0) -> torch.Tensor:
    return torch.sin(torch.arange(int(rate * seconds)) / rate * 2 * math.pi * pitch).float()


@pytest.mark.parametrize("rate,wanted", [(8000, 16000), (44100, 16000), (16000, 8000), (22050, 16000), (11025, 8000)])
def test_a_resampled_tone_is_the_tone_of_the_other_rate(rate: int, wanted: int) -> None:
    found, straight = resampled(a_tone(rate), rate, wanted), a_tone(wanted)
    assert abs(len(found) - len(straight)) <= 1
    middle = slice(len(straight) // 8, -len(straight) // 8)
    size = min(len(found), len(straight))
    assert float((found[:size] - straight[:size])[middle].abs().max()) < 2e-3


def test_what_the_new_rate_cannot_hold_is_gone() -> None:
    found = resampled(a_tone(16000, pitch=6000), 16000, 8000)
    assert float(found[500:-500].abs().max()) < 1e-2


def speech() -> Loaded:
    return Loaded(model("speech"), tokenizer(), processor("speech"))


def test_a_sound_of_another_rate_is_heard_and_that_is_said() -> None:
    trace = look(speech(), (a_tone(8000).numpy(), 8000), max_new_tokens=4, watch=(), keep="qk")
    assert trace.made["notes"] == ["the sound was resampled from 8000 to 16000 samples a second"]
    assert trace.answer is not None and trace.answer.task == "automatic-speech-recognition"
    cut = look(speech(), (a_tone(16000, 1.5).numpy(), 16000), max_new_tokens=4, truncate=True, watch=(), keep="qk")
    assert cut.made["notes"] == ["of 1.5 s the first 1 s are heard"]


@pytest.mark.parametrize("samples,words", [([], "holds no samples"), ([0.1] * 20000, "lasts 1.2 s and Whisper")])
def test_empty_and_long_sounds_are_refused(samples: list[float], words: str) -> None:
    with pytest.raises(regard.Unsupported, match=words):
        fitted(speech(), (np.array(samples, dtype=np.float32), 16000), False)


def test_stereo_is_heard_as_the_mean_of_its_sides(tmp_path: Path) -> None:
    sides = np.stack([np.full(100, 8192), np.full(100, -4096)], 1).astype(np.int16)
    with wave.open(str(tmp_path / "both.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(sides.tobytes())
    samples, rate = read_input(str(tmp_path / "both.wav"))
    assert rate == 16000 and np.allclose(samples, 2048 / 32768)


PICTURES: dict[str, Any] = {
    "grey": Image.new("L", (20, 30), 90),
    "alpha": Image.new("RGBA", (20, 20), (255, 0, 0, 0)),
    "palette": Image.new("P", (20, 20)),
    "one": Image.new("RGB", (1, 1), "red"),
    "wide": Image.new("RGB", (20_000, 3), "blue"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_every_picture_has_an_answer(name: str, tmp_path: Path) -> None:
    PICTURES[name].save(tmp_path / f"{name}.png")
    picture = read_input(str(tmp_path / f"{name}.png"))
    assert picture.mode == "RGB" and picture.size == PICTURES[name].size
    assert name != "alpha" or picture.getpixel((0, 0)) == (255, 255, 255)
    found = answer(Loaded(model("image"), None, processor("image")), picture)
    assert found.text in ("bad", "fair", "good") and found.confidence is not None


def test_a_picture_of_more_pixels_than_fit_is_refused(tmp_path: Path) -> None:
    Image.new("1", (20_000, 20_000)).save(tmp_path / "huge.png")
    with pytest.raises(UserError, match=r"huge.png is not an image that can be read"):
        read_input(str(tmp_path / "huge.png"))
