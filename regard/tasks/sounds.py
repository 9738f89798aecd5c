"""Sounds of a list, as log-mel features."""

from __future__ import annotations

import wave
from pathlib import Path

import torch
from torch import Tensor

from regard.errors import UserError
from regard.hf.sound import resampled
from regard.tasks.kind import Rows
from regard.tasks.writer.config import ListenConfig
from regard.tasks.writer.encoders import log_mel


def read_wav(path: Path, where: str) -> tuple[Tensor, int]:
    """(samples float32 [N], rate) of a 16-bit PCM file, the mean of its channels. Raises UserError naming the line."""
    try:
        with wave.open(str(path)) as file:
            width, channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
            raw = file.readframes(file.getnframes())
    except (wave.Error, EOFError, OSError):
        raise UserError(f"{where} names {path.name}, which is not a PCM wav file; convert it to 16-bit PCM") from None
    if width != 2:
        raise UserError(f"{where} names {path.name}, which has {8 * width}-bit samples; convert it to 16-bit PCM")
    raw = raw[: len(raw) - len(raw) % (2 * channels)]
    if not raw:
        raise UserError(f"{where} names {path.name}, which holds no sound; remove the line")
    samples = torch.frombuffer(bytearray(raw), dtype=torch.int16).view(-1, channels).float().mean(1) / 32768
    return samples, rate


def features_of(config: ListenConfig, rows: Rows, notes: list[str]) -> list[Tensor]:
    """float16 [frames, bands] of each file that rows (path, words, where) name; other rates are resampled, and counted
    in the notes."""
    found, others = [], 0
    for path, _, where in rows:
        samples, rate = read_wav(path, where)
        if rate != config.sampling_rate:
            samples, others = resampled(samples, rate, config.sampling_rate), others + 1
        found.append(log_mel(samples[None], config)[0].half())
    if others:
        notes.append(f"{others} sounds were resampled to {config.sampling_rate} samples a second")
    return found
