"""Positions as numbers: sinusoids, rotary frequencies and their scalings, ALiBi slopes, T5 buckets. Pure functions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from regard.errors import UserError


def sinusoidal(positions: Tensor, width: int, base: float = 10_000.0) -> Tensor:
    """PE(p, 2i) = sin(p / base^{2i/width}), PE(p, 2i+1) = cos(…) (Vaswani 2017, section 3.5). [..., width] float64."""
    if width < 1:
        raise UserError(f"a sinusoidal position needs a width of at least 1, got {width}")
    half = torch.arange(0, width, 2, dtype=torch.float64, device=positions.device)
    angle = positions[..., None].to(torch.float64) * base ** (-half / width)
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(-2)[..., :width]


def alibi_slopes(heads: int) -> Tensor:
    """m_h = 2^{-8h/H} for H a power of two, else the nearest power's and every other of the next (Press 2022, code)."""
    power = 1 << (heads.bit_length() - 1)
    slopes = [2.0 ** (-8.0 * (h + 1) / power) for h in range(power)]
    slopes += [2.0 ** (-4.0 * (h + 1) / power) for h in range(0, 2 * (heads - power), 2)]
    return torch.tensor(slopes, dtype=torch.float64, device="cpu")


def t5_buckets(distance: Tensor, buckets: int, max_distance: int, bidirectional: bool) -> Tensor:
    """The bucket of p_j - p_i: exact when near, logarithmic when far (Raffel 2020, section 2.1). int64, as distance."""
    if buckets < (4 if bidirectional else 2) or max_distance <= buckets // (4 if bidirectional else 2):
        raise UserError(f"T5 buckets need max_distance above the exact ones, got buckets={buckets}, {max_distance=}")
    result = torch.zeros_like(distance)
    if bidirectional:
        buckets //= 2
        result = result + (distance > 0) * buckets
        distance = distance.abs()
    else:
        distance = (-distance).clamp(min=0)
    exact = buckets // 2
    far = (distance.float().clamp(min=1) / exact).log() / math.log(max_distance / exact) * (buckets - exact)
    far = (exact + far.clamp(min=0).long()).clamp(max=buckets - 1)
    return result + torch.where(distance < exact, distance, far)


# ---- rotary ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Linear:
    """Positions divided by `factor` (position interpolation: Chen 2023, eq. 4)."""

    factor: float

    def frequencies(self, plain: Tensor, base: float, length: int) -> tuple[Tensor, float]:
        return plain / self.factor, 1.0

    def __str__(self) -> str:
        return f"linear({self.factor})"


@dataclass(frozen=True)
class Dynamic:
    """The base grows once the sequence is longer than in training (dynamic NTK: bloc97 2023; transformers)."""

    factor: float
    trained: int

    def frequencies(self, plain: Tensor, base: float, length: int) -> tuple[Tensor, float]:
        width = 2 * plain.shape[0]
        length = max(length, self.trained)
        growth = self.factor * length / self.trained - (self.factor - 1)
        return rotary_frequencies(width, base * growth ** (width / (width - 2))), 1.0


@dataclass(frozen=True)
class Llama3:
    """Low frequencies divided by `factor`, high ones kept, a ramp between (Llama 3.1, code)."""

    factor: float
    trained: int
    low: float = 1.0
    high: float = 4.0

    def frequencies(self, plain: Tensor, base: float, length: int) -> tuple[Tensor, float]:
        turns = self.trained * plain / (2 * math.pi)
        kept = ((turns - self.low) / (self.high - self.low)).clamp(0, 1)
        return plain * (kept + (1 - kept) / self.factor), 1.0


@dataclass(frozen=True)
class Yarn:
    """NTK by parts: frequencies that turn often are kept, slow ones divided; scores sharpened (Peng 2023, eq. 23)."""

    factor: float
    trained: int
    fast: float = 32.0
    slow: float = 1.0

    def frequencies(self, plain: Tensor, base: float, length: int) -> tuple[Tensor, float]:
        width = 2 * plain.shape[0]
        low = max(math.floor(self._dimension(self.fast, width, base)), 0)
        high = min(math.ceil(self._dimension(self.slow, width, base)), width - 1)
        ramp = (torch.arange(width // 2, dtype=torch.float64, device=plain.device) - low) / max(high - low, 0.001)
        divided = ramp.clamp(0, 1)
        attention = 1.0 if self.factor <= 1 else 0.1 * math.log(self.factor) + 1.0
        return plain * (1 - divided) + plain / self.factor * divided, attention

    def _dimension(self, turns: float, width: int, base: float) -> float:
        """The dimension that turns this often over the trained length."""
        return width * math.log(self.trained / (turns * 2 * math.pi)) / (2 * math.log(base))


Scaling = Linear | Dynamic | Llama3 | Yarn


def length(*positions: Tensor) -> int:
    """How many positions there are up to the last of these: 1 + the largest, 0 where there are none."""
    return max((1 + int(at.amax()) for at in positions if at.numel()), default=0)


def rotary_frequencies(width: int, base: float = 10_000.0) -> Tensor:
    """θ_i = base^{-2i/width}, i = 0 … width/2 - 1 (Su 2021, eq. 15). float64 [width / 2], radians per token."""
    if width < 2 or width % 2:
        raise UserError(f"rotary positions turn pairs of dimensions; a width of {width} is not even and positive")
    return base ** (-torch.arange(0, width, 2, dtype=torch.float64, device="cpu") / width)


def rotate(x: Tensor, positions: Tensor, frequencies: Tensor, interleaved: bool = False) -> Tensor:
    """R(p) x: each pair of dimensions turned by p·θ. x [B,H,T,D], positions [B,T]; pairs (i, i + width/2), as in Llama,
    or neighbours with interleaved=True, as in the paper. Dimensions beyond 2·len(θ) are left."""
    angle = positions[:, None, :, None].to(torch.float64) * frequencies.to(positions.device)
    return turned(x, angle.cos().to(x.dtype), angle.sin().to(x.dtype), interleaved)


def turned(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool = False) -> Tensor:
    """Each pair of dimensions of x [B,H,T,D] turned by cosines and sines [B or 1,1,T,width / 2]."""
    half = cos.shape[-1]
    paired, rest = x[..., : 2 * half], x[..., 2 * half :]
    a, b = (paired[..., ::2], paired[..., 1::2]) if interleaved else (paired[..., :half], paired[..., half:])
    pairs = (a * cos - b * sin, b * cos + a * sin)
    joined = torch.stack(pairs, -1).flatten(-2) if interleaved else torch.cat(pairs, -1)
    return torch.cat([joined, rest], -1)
