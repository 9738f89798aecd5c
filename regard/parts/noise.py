"""Noise as a pure function of where it falls: any tile, order or second computation sees the same draw."""

from __future__ import annotations

import torch
from torch import Tensor

from regard.inputs import Where

_MASK = 0xFFFFFFFF


def mixed_bits(*counters: Tensor | int) -> Tensor:
    """32 well-mixed bits (in int64) of any number of broadcastable integers: a chained "lowbias32" hash."""
    state: Tensor | int = 0x9E3779B9
    for counter in counters:
        state = _scramble(((counter & _MASK) + state * 0x01000193) & _MASK)
    assert isinstance(state, Tensor)
    return state


def _scramble(x: Tensor | int) -> Tensor | int:
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & _MASK
    x = ((x ^ (x >> 15)) * 0x846CA68B) & _MASK
    return x ^ (x >> 16)


def uniform(seed: int, where: Where, dtype: torch.dtype) -> Tensor:
    """A number in (0, 1) per cell [B,H,Tq,Tk], a function of (seed, layer, batch, head, p_i, p_j) alone."""
    layer = 0 if where.layer is None else where.layer + 1
    bits = mixed_bits(seed, layer, where.batch, where.head, where.query, where.key)
    return ((bits.double() + 0.5) / (_MASK + 1)).to(dtype).clamp(max=1 - 2.0**-24)
