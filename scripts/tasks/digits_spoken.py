"""Spoken digits joined to sequences: python -m scripts.tasks.digits_spoken OUT FSDD.tar.gz [TRAIN].

FSDD.tar.gz holds recordings {digit}_{speaker}_{index}.wav, 8 kHz (the Free Spoken Digit Dataset); index 0 to 4 are held
out for testing, as the set itself does. OUT holds wav files, train.tsv, valid.tsv, test.tsv of 3 to 7 digits, long.tsv
of 10 to 14 (path, tab, digits in words), and times.json with begin and end in seconds of every digit. Silence of random
length stands between digits, and noise lies under all.
"""

from __future__ import annotations

import io
import json
import sys
import tarfile
import wave
from pathlib import Path

import numpy as np

RATE, SEED = 8000, 0
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PARTS = {"valid": (200, 3, 7), "test": (400, 3, 7), "long": (200, 10, 14)}
HELD_OUT = 5  # recordings of each speaker and digit, those of the lowest index, for testing

Recordings = dict[int, list[np.ndarray]]


def recordings(archive: Path) -> tuple[Recordings, Recordings, Recordings]:
    """Recordings by digit for training, validation and testing, each a float32 array without its silent ends."""
    parts: tuple[Recordings, ...] = tuple({digit: [] for digit in range(10)} for _ in range(3))
    with tarfile.open(archive) as tar:
        for member in sorted(tar.getmembers(), key=lambda each: each.name):
            if member.name.endswith(".wav"):
                digit, _, index = Path(member.name).stem.split("_")
                with wave.open(io.BytesIO(tar.extractfile(member).read())) as file:
                    raw = np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float32) / 32768
                part = 2 if int(index) < HELD_OUT else 1 if int(index) == HELD_OUT else 0
                parts[part][int(digit)].append(raw)
    return parts  # type: ignore[return-value]


def sequence(
    draw: np.random.Generator, heard: Recordings, least: int, most: int
) -> tuple[np.ndarray, list[int], list[tuple[float, float]]]:
    """The sound, its digits, and begin and end of each in seconds."""
    digits = draw.integers(0, 10, draw.integers(least, most + 1)).tolist()
    parts, times, at = [_gap(draw)], [], 0
    at = len(parts[0])
    for digit in digits:
        sound = heard[digit][draw.integers(len(heard[digit]))]
        sound = sound / max(float(np.abs(sound).max()), 1e-3) * draw.uniform(0.3, 0.8)
        times.append((at / RATE, (at + len(sound)) / RATE))
        parts += [sound, _gap(draw)]
        at += len(sound) + len(parts[-1])
    joined = np.concatenate(parts)
    noise = draw.standard_normal(len(joined)).astype(np.float32) * draw.uniform(0.001, 0.01)
    return joined + noise, digits, times


def _gap(draw: np.random.Generator) -> np.ndarray:
    return np.zeros(int(draw.uniform(0.05, 0.35) * RATE), np.float32)


def main(out: Path, archive: Path, train: int) -> None:
    """Write every part."""
    out.mkdir(parents=True, exist_ok=True)
    training, validation, testing = recordings(archive)
    times = {}
    for number, (part, (count, least, most)) in enumerate({"train": (train, 3, 7), **PARTS}.items()):
        draw = np.random.default_rng((SEED, number))
        heard = {"train": training, "valid": validation}.get(part, testing)
        lines = []
        for row in range(count):
            sound, digits, spans = sequence(draw, heard, least, most)
            name = f"{part}-{row:05d}.wav"
            with wave.open(str(out / name), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(RATE)
                file.writeframes((sound.clip(-1, 1) * 32767).astype(np.int16).tobytes())
            lines.append(f"{name}\t{' '.join(NAMES[digit] for digit in digits)}\n")
            times[name] = spans
        (out / f"{part}.tsv").write_text("".join(lines))
    (out / "times.json").write_text(json.dumps(times) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 3000)
