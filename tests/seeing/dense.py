"""Every statistic of regard, restated densely from a whole weight matrix in float64: the independent oracle."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def dense_statistics(
    weights: Tensor,
    allowed: Tensor,
    query_positions: Tensor,
    key_positions: Tensor,
    valid: Tensor,
    ids: Tensor | None,
    special: Tensor | None,
    *,
    k: int = 8,
    sink: int = 4,
    bins: int = 18,
) -> dict[str, Tensor]:
    """weights, allowed [B,H,Tq,Tk]; positions, valid, ids, special [B,T]. Rows of padding count as empty."""
    a = weights.double() * valid[:, None, :, None]
    distance = (query_positions[:, None, :, None] - key_positions[:, None, None, :]).abs().expand(a.shape)
    found = {
        "entropy": -(a * torch.where(a > 0, a, 1.0).log()).sum(-1),
        "max": a.amax(-1),
        "mass": a.sum(-1),
        "sink": (a * (key_positions < sink)[:, None, None]).sum(-1),
        "distance": (a * distance).sum(-1),
        "own": (a * (query_positions[:, :, None] == key_positions[:, None])[:, None]).sum(-1),
        "previous": (a * ((query_positions[:, :, None] - 1) == key_positions[:, None])[:, None]).sum(-1),
        "received": a.sum(-2),
        "top": torch.nn.functional.pad(a, (0, k)).sort(dim=-1, descending=True, stable=True).values[..., :k],
    }
    found["span"] = found["entropy"].exp()
    histogram = torch.zeros(*a.shape[:2], bins, dtype=torch.float64)
    for b in range(bins):
        low, high = (0, 0) if b == 0 else (2 ** (b - 1), 2**b - 1 if b < bins - 1 else 10**9)
        histogram[..., b] = (a * ((distance >= low) & (distance <= high))).sum((-1, -2))
    found["distances"] = histogram / histogram.sum(-1, keepdim=True)
    if special is not None:
        found["special"] = (a * special[:, None, None]).sum(-1)
    if ids is not None:
        same = ids[:, :, None] == ids[:, None, :]
        itself = query_positions[:, :, None] == key_positions[:, None, :]
        found["duplicate"] = (a * (same & ~itself)[:, None]).sum(-1)
        before = torch.full_like(ids, -1)
        before[:, 1:] = ids[:, :-1]
        before[key_positions <= 0] = -1
        own_next = query_positions[:, :, None] + 1 == key_positions[:, None, :]
        found["induction"] = (a * ((ids[:, :, None] == before[:, None, :]) & ~own_next)[:, None]).sum(-1)
    return found


def dense_overview(weights: Tensor, allowed: Tensor, valid: Tensor, resolution: int) -> tuple[Tensor, Tensor]:
    """(mean over allowed pairs, maximum) by cells of the smallest power of two, one cell at a time."""
    a = weights.double() * valid[:, None, :, None]
    pairs = (allowed & valid[:, None, :, None]).expand(a.shape)
    sides = []
    for length in a.shape[2:]:
        side = 1
        while math.ceil(length / side) > resolution:
            side *= 2
        sides.append(side)
    rows, cols = (math.ceil(n / s) for n, s in zip(a.shape[2:], sides, strict=True))
    mean, top = torch.zeros(*a.shape[:2], rows, cols), torch.zeros(*a.shape[:2], rows, cols)
    for r in range(rows):
        for c in range(cols):
            cell = (..., slice(r * sides[0], (r + 1) * sides[0]), slice(c * sides[1], (c + 1) * sides[1]))
            mean[..., r, c] = a[cell].sum((-1, -2)) / pairs[cell].sum((-1, -2)).clamp(min=1)
            top[..., r, c] = a[cell].amax((-1, -2))
    return mean, top
