"""What writers read: pictures and speech."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from regard.errors import UserError
from regard.tasks.writer.config import CaptionConfig, ListenConfig

STRIDE = 4  # frames of 1/hop that a state of the listener covers


@dataclass
class Encoded(ModelOutput):
    """States [B,S,V]; mask bool [B,S], None for all; ids [B,S] of a text."""

    last_hidden_state: Tensor | None = None
    mask: Tensor | None = None
    ids: Tensor | None = None


class PictureEncoder(PreTrainedModel):
    """A state for each patch: convolutions of width 3 and stride 2 down to the patch, one more, and a learned vector
    for where the patch lies."""

    config_class = CaptionConfig
    main_input_name = "pixel_values"
    _supports_sdpa = True

    def __init__(self, config: CaptionConfig) -> None:
        super().__init__(config)
        steps = int(math.log2(config.patch_size))
        if 2**steps != config.patch_size or config.image_size % config.patch_size:
            raise UserError(f"a patch is a power of 2 that divides the picture, not {config.patch_size}")
        wide = [3, *(min(config.channels * 2**n, config.memory_size) for n in range(steps))]
        layers: list[nn.Module] = []
        for before, after in pairwise(wide):
            layers += [nn.Conv2d(before, after, 3, 2, 1), nn.GroupNorm(4, after), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(wide[-1], config.memory_size, 1))
        side = config.image_size // config.patch_size
        self.where = nn.Parameter(torch.empty(side * side, config.memory_size).normal_(std=0.5))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Layers begin as they made themselves."""

    def forward(self, pixel_values: Tensor, **unused: Any) -> Encoded:
        """pixel_values [B,3,height,width] -> states [B,patches,V]."""
        states = self.layers(pixel_values).flatten(2).transpose(1, 2) + self.where
        return Encoded(dropout(states, self.config.dropout, self.training))


def mel_bands(rate: int, window: int, bands: int) -> Tensor:
    """Triangular filters, evenly spaced in mel(f) = 2595 log10(1 + f / 700), float32 [window // 2 + 1, bands]."""
    top = 2595 * math.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (torch.linspace(0, top, bands + 2, dtype=torch.float64) / 2595) - 1)
    bins = torch.linspace(0, rate / 2, window // 2 + 1, dtype=torch.float64)[:, None]
    up = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    down = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return torch.minimum(up, down).clamp(min=0).float()


def log_mel(samples: Tensor, config: ListenConfig) -> Tensor:
    """log mel power of frames, each sound's numbers of mean 0 and deviation 1. samples [B,N] -> [B,frames,bands]."""
    short = config.window - samples.shape[1]
    padded = torch.nn.functional.pad(samples, (0, max(short, 0)))
    window = torch.hann_window(config.window, device=samples.device)
    spectrum = torch.stft(padded, config.window, config.hop, window=window, center=False, return_complex=True)
    power = spectrum.abs().square().transpose(1, 2)
    bands = power @ mel_bands(config.sampling_rate, config.window, config.bands).to(power)
    found = (bands + 1e-6 * bands.mean((1, 2), keepdim=True) + 1e-10).log()
    return (found - found.mean((1, 2), keepdim=True)) / found.std((1, 2), keepdim=True).clamp(min=1e-5)


class SpeechEncoder(PreTrainedModel):
    """log-mel bands -> two convolutions of width 3 and stride 2 -> a bidirectional GRU: a state for every 4 frames."""

    config_class = ListenConfig
    config: ListenConfig
    main_input_name = "input_values"
    _supports_sdpa = True

    def __init__(self, config: ListenConfig) -> None:
        super().__init__(config)
        self.first = nn.Conv1d(config.bands, config.channels, 3, 2, 1)
        self.second = nn.Conv1d(config.channels, config.channels, 3, 2, 1)
        self.rnn = nn.GRU(config.channels, config.encoder_size, batch_first=True, bidirectional=True)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Layers begin as they made themselves."""

    def forward(
        self,
        input_values: Tensor | None = None,
        input_features: Tensor | None = None,
        lengths: Tensor | None = None,
        **unused: Any,
    ) -> Encoded:
        """input_values [B,samples], or log-mel input_features [B,frames,bands] of these lengths [B] -> states."""
        if input_features is None:
            if input_values is None:
                raise UserError("a listener hears input_values or input_features; give one of them")
            input_features = log_mel(input_values, self.config)
        if self.training and self.config.hidden_bands:
            input_features = self._hidden(input_features)
        x = torch.relu(self.first(input_features.transpose(1, 2)))
        x = dropout(torch.relu(self.second(x)), self.config.dropout, self.training).transpose(1, 2)
        if lengths is None:
            states, mask = self.rnn(x)[0], None
        else:
            lengths = (lengths + STRIDE - 1) // STRIDE
            packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
            states, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True, total_length=x.shape[1])
            mask = torch.arange(x.shape[1], device=x.device) < lengths.to(x.device)[:, None]
        return Encoded(dropout(states, self.config.dropout, self.training), mask)

    def _hidden(self, features: Tensor) -> Tensor:
        """A run of bands of each sound is silenced (Park 2019, SpecAugment, without time warping)."""
        most = round(self.config.hidden_bands * features.shape[2])
        size = torch.randint(0, most + 1, (len(features), 1, 1))
        begin = (torch.rand(len(features), 1, 1) * (features.shape[2] - size + 1)).long()
        band = torch.arange(features.shape[2])
        return features.masked_fill(((band >= begin) & (band < begin + size)).to(features.device), 0.0)
