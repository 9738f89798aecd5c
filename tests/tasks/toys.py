"""Tiny models of every own type, and tiny data that they can learn."""

from __future__ import annotations

import random
import struct
import wave
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from regard.tasks.pooled import PooledClassifier, PooledConfig
from regard.tasks.writer.config import CaptionConfig, ListenConfig, SummaryConfig
from regard.tasks.writer.model import Captioner, Listener, Summariser

SMALL: dict[str, Any] = {
    "vocab_size": 30, "embedding_size": 16, "hidden_size": 24, "attention_size": 20, "memory_size": 32,
}  # fmt: skip
LISTEN = {**SMALL, "encoder_size": 16, "channels": 8, "bands": 12, "pace": 3.0, "reach": 4, "filter_width": 7}
KINDS = {
    "soft": lambda: Captioner(CaptionConfig(**SMALL, attention="soft", gate=True, image_size=24)),
    "hard": lambda: Captioner(CaptionConfig(**SMALL, attention="hard", gate=True, image_size=24)),
    "content": lambda: Listener(ListenConfig(**LISTEN, attention="content")),
    "location": lambda: Listener(ListenConfig(**LISTEN, attention="location", back=1, ahead=2)),
    "local_m": lambda: Listener(ListenConfig(**LISTEN, attention="local_m")),
    "pointer": lambda: Summariser(SummaryConfig(**{**SMALL, "hidden_size": 16}, pointer=True)),
}


def writer(kind: str) -> Any:
    """A writer in eval mode whose weights are large enough that it prefers some words."""
    torch.manual_seed(3)
    made = KINDS[kind]().eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if parameter.ndim > 1 and "encoder" not in name:
                parameter *= 2.5
    return made


def inputs(kind: str, rows: int = 1) -> dict[str, torch.Tensor]:
    """A batch for it."""
    make = torch.Generator().manual_seed(5)
    if kind in ("soft", "hard"):
        return {"pixel_values": torch.randn(rows, 3, 24, 24, generator=make)}
    if kind == "pointer":
        return {"input_ids": torch.randint(4, 30, (rows, 9), generator=make)}
    return {"input_values": torch.randn(rows, 8000, generator=make)}


def pooled() -> PooledClassifier:
    torch.manual_seed(1)
    sizes = {"vocab_size": 50, "embedding_size": 16, "hidden_size": 16, "attention_size": 16}
    return PooledClassifier(PooledConfig(**sizes)).eval()


# ---- data ----------------------------------------------------------------------------------------------------------

GOOD, BAD = ("good", "fine", "great"), ("bad", "poor", "awful")
COLOURS = {"red": (220, 30, 30), "blue": (30, 30, 220), "green": (30, 200, 30)}
TONES = {"low": 300, "high": 1200}


def sentences(folder: Path, count: int = 200) -> Path:
    """Sentences that one word makes good or bad."""
    draw, lines = random.Random(0), []
    for _ in range(count):
        label, words = draw.choice([("1", GOOD), ("0", BAD)])
        filler = [draw.choice(["the", "a", "film", "was", "very"]) for _ in range(draw.randint(3, 7))]
        filler.insert(draw.randrange(len(filler)), draw.choice(words))
        lines.append(f"{' '.join(filler)}\t{label}\n")
    path = folder / "sentences.tsv"
    path.write_text("".join(lines))
    return path


def pictures(folder: Path, count: int = 60) -> Path:
    """Pictures of one colour, and its name."""
    draw, lines = random.Random(0), []
    for number in range(count):
        name = draw.choice(list(COLOURS))
        Image.new("RGB", (16, 16), COLOURS[name]).save(folder / f"{number}.png")
        lines.append(f"{number}.png\t{name}\n")
    path = folder / "pictures.tsv"
    path.write_text("".join(lines))
    return path


def sounds(folder: Path, count: int = 60, rate: int = 8000) -> Path:
    """One or two tones, low or high, and their names."""
    draw, lines = random.Random(0), []
    for number in range(count):
        names = [draw.choice(list(TONES)) for _ in range(draw.randint(1, 2))]
        parts = [tone(TONES[name], rate) for name in names]
        write_wav(folder / f"{number}.wav", [x for part in parts for x in (*part, *[0.0] * (rate // 20))], rate)
        lines.append(f"{number}.wav\t{' '.join(names)}\n")
    path = folder / "sounds.tsv"
    path.write_text("".join(lines))
    return path


def tone(pitch: int, rate: int) -> list[float]:
    time = torch.arange(rate // 5) / rate
    return (0.5 * torch.sin(2 * torch.pi * pitch * time)).tolist()


def write_wav(path: Path, samples: list[float], rate: int, channels: int = 1) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(b"".join(struct.pack("<h", int(x * 32767)) for x in samples))
    return path
