"""Sound at the rate that a model hears."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv1d, pad

from regard.hf.errors import Unsupported
from regard.hf.load import Loaded

CROSSINGS = 16  # of the sinc to either side of a sample, within its Hann window
ROLL_OFF = 0.95  # of the lower Nyquist frequency


def fitted(loaded: Loaded, given: Any, truncate: bool) -> tuple[Any, list[str]]:
    """A sound (samples, rate) as the model hears it, resampled where it must be, and sentences on what was done.

    Anything else comes back as it is. Raises Unsupported for a sound without samples, and for one longer than the
    model hears (truncate=True cuts it there).
    """
    wanted = getattr(loaded.processor, "sampling_rate", None)
    if not isinstance(given, tuple) or wanted is None:
        return given, []
    samples, rate = torch.as_tensor(given[0]).float().flatten(), int(given[1])
    if not samples.numel():
        raise Unsupported("the sound holds no samples; give a longer one")
    notes = []
    if rate != wanted:
        samples = resampled(samples, rate, wanted)
        notes.append(f"the sound was resampled from {rate} to {wanted} samples a second")
    longest = getattr(loaded.processor, "chunk_length", None)
    if longest is not None and samples.numel() > longest * wanted:
        name = type(loaded.model).__name__
        lasts = samples.numel() / wanted
        if not truncate:
            raise Unsupported(f"the sound lasts {lasts:.1f} s and {name} hears {longest} s; cut it, or --truncate")
        samples = samples[: longest * wanted]
        notes.append(f"of {lasts:.1f} s the first {longest} s are heard")
    return (samples.numpy(), wanted), notes


def resampled(samples: Tensor, rate: int, wanted: int) -> Tensor:
    """y_n = Σ_k x_k h(n / wanted - k / rate) with h a Hann-windowed sinc below both Nyquist frequencies.

    samples float32 [S] -> float32 [⌈S · wanted / rate⌉] (Smith, Digital Audio Resampling, band-limited interpolation).
    """
    if rate < 1 or wanted < 1:
        raise Unsupported(f"a rate is at least 1 sample a second, got {min(rate, wanted)}")
    common = math.gcd(rate, wanted)
    old, new = rate // common, wanted // common
    cut = ROLL_OFF * min(old, new)
    reach = math.ceil(CROSSINGS * old / cut)
    # one filter for each of the `new` samples that fall between `old` samples of the source
    time = torch.arange(-reach, reach + old, dtype=torch.float64)[None] / old
    time = (torch.arange(new, dtype=torch.float64)[:, None] / new - time) * cut
    window = torch.cos(time.clamp(-CROSSINGS, CROSSINGS) * math.pi / CROSSINGS / 2) ** 2
    filters = (torch.sinc(time) * window * cut / old).float()
    found = conv1d(pad(samples, (reach, reach + old))[None, None], filters[:, None], stride=old)
    return found[0].T.flatten()[: math.ceil(samples.numel() * new / old)]
