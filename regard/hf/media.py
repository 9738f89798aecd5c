"""What lies under an axis that is no text: the picture that patches were cut from, the sound and its seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from regard.hf.load import Loaded
from regard.seeing.trace import Tokens, Trace

LARGEST = 336  # pixels a side that are kept of a picture
BINS = 1200  # of a sound's outline
FRAMES, BANDS = 600, 48  # of its spectrogram
QUIETEST = 80.0  # decibels under the loudest
SILENCE = 1e-10  # what the library gives for a power of 0
USUAL_MEAN, USUAL_DEVIATION = (0.5,) * 3, (0.5,) * 3


def lay_out(trace: Trace, loaded: Loaded, given: Any, inputs: Mapping[str, Tensor]) -> None:
    """Tell the axes of images how their patches lie, and of what picture; the axes of sounds how long a frame is."""
    pixels = inputs.get("pixel_values")
    for name, tokens in trace.axes.items():
        if pixels is not None and pixels.ndim == 4 and tokens.kind != "text":
            trace.axes[name] = _patches(tokens, loaded, pixels)
        elif isinstance(given, tuple) and tokens.kind == "frames":
            trace.axes[name] = _frames(tokens, loaded, given, inputs)


def _patches(tokens: Tokens, loaded: Loaded, pixels: Tensor) -> Tokens:
    config = getattr(loaded.model.config, "vision_config", loaded.model.config)
    patch = getattr(config, "patch_size", None)
    if not isinstance(patch, int) or getattr(config, "image_size", None) is None:
        return tokens
    rows, columns = (side // patch for side in pixels.shape[-2:])
    lead = tokens.axis.length - rows * columns
    if lead not in (0, 1):
        return tokens
    text = ["[cls]"] * lead + [f"{r},{c}" for r in range(rows) for c in range(columns)]
    shown = picture_of(pixels[:, :, : rows * patch, : columns * patch], loaded.processor)
    every = [text] * len(tokens.text)
    return replace(tokens, kind="patches", grid=(rows, columns), text=every, picture=shown)


def picture_of(pixels: Tensor, processor: Any) -> Tensor | None:
    """The picture as the model saw it, uint8 [B, height, width, 3]: pixels · deviation + mean, in 0…1, at most LARGEST.

    pixels [B, 1 or 3, height, width], normalised by the processor's mean and deviation.
    """
    if pixels.shape[1] not in (1, 3):
        return None
    mean, deviation = (
        torch.tensor(getattr(processor, name, None) or usual, device=pixels.device).float().view(1, -1, 1, 1)
        for name, usual in (("image_mean", USUAL_MEAN), ("image_std", USUAL_DEVIATION))
    )
    shown = pixels.detach().float()
    if getattr(processor, "do_normalize", True) is not False:
        shown = shown * deviation + mean
    largest = max(shown.shape[-2:])
    if largest > LARGEST:
        size = [max(1, round(side * LARGEST / largest)) for side in shown.shape[-2:]]
        shown = interpolate(shown, size=size, mode="bilinear", antialias=True)
    whole = (shown.clamp(0, 1) * 255).round().to(torch.uint8)
    return whole.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).cpu().contiguous()


def _frames(tokens: Tokens, loaded: Loaded, sound: tuple[Any, int], inputs: Mapping[str, Tensor]) -> Tokens:
    samples, rate = torch.as_tensor(sound[0]).float().flatten(), sound[1]
    features = inputs.get("input_features")
    hop = getattr(loaded.processor, "hop_length", None)
    seconds = features.shape[-1] * hop / rate if features is not None and hop else samples.numel() / rate
    length = tokens.axis.length
    text = [f"{slot * seconds / max(length, 1):.2f} s" for slot in range(length)]
    count, heard = len(tokens.text), round(seconds * rate)
    wave, bands = (draw.expand(count, -1, -1) for draw in (outline(samples, heard), log_mel(samples, rate, heard)))
    return replace(tokens, text=[text] * count, seconds=seconds, wave=wave, spectrogram=bands)


def outline(samples: Tensor, length: int) -> Tensor:
    """Lowest and highest sample of each of at most BINS bins, float32 [1, bins, 2], of `length` samples (0 beyond)."""
    bins = max(1, min(BINS, length))
    size = -(-max(length, 1) // bins)
    padded = torch.zeros(bins * size)
    kept = min(samples.numel(), bins * size)
    padded[:kept] = samples[:kept]
    cut = padded.view(bins, size)
    return torch.stack([cut.amin(1), cut.amax(1)], -1)[None]


def log_mel(samples: Tensor, rate: int, length: int) -> Tensor:
    """Loudness of mel bands over time, uint8 [1, BANDS, at most FRAMES frames], of `length` samples (silence beyond).

    255 is the loudest, 0 is QUIETEST decibels under it. Frames last 25 ms and begin 10 ms or more after each other.
    """
    from transformers.audio_utils import mel_filter_bank, spectrogram

    hop = max(rate // 100, -(-length // FRAMES), 1)
    window = max(rate // 40, hop)
    size = 1 << (2 * window - 1).bit_length()
    filters = mel_filter_bank(size // 2 + 1, BANDS, 0.0, rate / 2, rate)
    padded = np.zeros(max(length, size), np.float32)
    padded[: min(len(samples), len(padded))] = samples[: len(padded)].cpu().numpy()
    shape = np.hanning(window + 1)[:-1]
    power = spectrogram(padded, shape, window, hop, size, power=2.0, mel_filters=filters)[:, : -(-length // hop)]
    if power.max() <= SILENCE:
        return torch.zeros(1, *power.shape, dtype=torch.uint8)
    loud = 10 * np.log10(np.maximum(power / power.max(), 10 ** (-QUIETEST / 10)))
    return torch.from_numpy((255 * (1 + loud / QUIETEST)).round().astype(np.uint8))[None]
