"""FAVOR+: positive random features whose products are the softmax's exponentials on average."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from regard.errors import UserError
from regard.inputs import Inputs
from regard.parts.scores import widened


@lru_cache(maxsize=16)
def orthogonal_features(count: int, width: int, seed: int) -> Tensor:
    """ω [count, width] float64: rows Gaussian in length, orthogonal in blocks of `width` (Choromanski 2021, 2.4)."""
    generator = torch.Generator("cpu").manual_seed(seed)
    blocks = [_rotation(width, generator) for _ in range(-(-count // width))]
    lengths = torch.randn(count, width, dtype=torch.float64, device="cpu", generator=generator).norm(
        dim=1, keepdim=True
    )
    return torch.cat(blocks)[:count] * lengths


def _rotation(width: int, generator: torch.Generator) -> Tensor:
    """An orthogonal matrix, all directions alike. A QR decomposition alone prefers some: it chooses the signs."""
    q, r = torch.linalg.qr(torch.randn(width, width, dtype=torch.float64, device="cpu", generator=generator))
    return (q * r.diagonal().sign()).T


def log_features(x: Tensor, count: int, seed: int) -> Tensor:
    """log √m φ(x) = ω x̂ - ‖x̂‖²/2, x̂ = x / D^{1/4}, of [B,H,T,D] as [B,H,T,count]."""
    x = widened(x) * x.shape[-1] ** -0.25
    omega = orthogonal_features(count, x.shape[-1], seed).to(x)
    return x @ omega.T - x.square().sum(-1, keepdim=True) / 2


@dataclass(frozen=True)
class PositiveFeatures:
    """φ(x) = e^{ω x̂ - ‖x̂‖²/2} / √m, x̂ = x / D^{1/4}: E[φ(q)·φ(k)] = e^{q·k/√D} (FAVOR+: Choromanski 2021, eq. 7).

    count m features drawn orthogonal from `seed`. What a feature's largest key has in its exponent moves to the query,
    and the query's largest exponent is dropped: it cancels in the ratio. So some product of a row is 1.
    """

    count: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UserError(f"favor({self.count}): at least 1 random feature")

    def __call__(self, x: Inputs) -> Inputs:
        q, k = (log_features(t, self.count, self.seed) for t in (x.q, x.k))
        if k.numel():
            valid = torch.ones_like(k[:, :, :, :1]) > 0 if x.key_valid is None else x.key_valid[:, None, :, None]
            most = k.detach().masked_fill(~valid, -torch.inf).amax(-2, keepdim=True)
            most = most.masked_fill(most == -torch.inf, 0.0)
            q, k = q + most.repeat_interleave(q.shape[1] // k.shape[1], 1), k - most
            q = q - q.detach().amax(-1, keepdim=True)
        return x.replace(q=q.exp() * self.count**-0.5, k=k.exp() * self.count**-0.5)

    def __str__(self) -> str:
        return f"favor({self.count}, {self.seed})"
