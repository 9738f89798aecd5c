"""When each word of a transcript was said, from where its attention looked."""

from __future__ import annotations

import torch
from torch import Tensor


def warped(weights: Tensor) -> list[tuple[int, int]]:
    """First and last frame of each token along the best monotone path: dynamic time warping.

    D_ij = -a_ij + min(D_{i-1,j-1}, D_{i-1,j}, D_{i,j-1}); the path from the last pair back to the first gives token i
    the frames of its row (Sakoe 1978; on attention, Radford 2022). weights [tokens, frames] -> [(first, last)].
    """
    tokens, frames = weights.shape
    cost = (-weights).double().tolist()
    far = float("inf")
    total = [[far] * (frames + 1) for _ in range(tokens + 1)]
    total[0][0] = 0.0
    for i in range(1, tokens + 1):
        row, above, costs = total[i], total[i - 1], cost[i - 1]
        for j in range(1, frames + 1):
            row[j] = costs[j - 1] + min(above[j - 1], above[j], row[j - 1])
    ends = [[frames, -1] for _ in range(tokens)]
    i, j = tokens, frames
    while i > 0 and j > 0:
        ends[i - 1] = [min(ends[i - 1][0], j - 1), max(ends[i - 1][1], j - 1)]
        steps = (total[i - 1][j - 1], i - 1, j - 1), (total[i - 1][j], i - 1, j), (total[i][j - 1], i, j - 1)
        _, i, j = min(steps, key=lambda step: step[0])
    return [(first, last) for first, last in ends]


LEAST = 0.1  # of a token's largest weight


def heard(weights: Tensor, spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The spans without the frames before and after that their tokens hardly look at: silence between words.

    A token keeps the frames from the first to the last that has at least a tenth of its largest weight in its span.
    weights [tokens, frames] -> [(first, last)].
    """
    found = []
    for row, (first, last) in zip(weights, spans, strict=True):
        inside = row[first : last + 1]
        looked = (inside >= LEAST * inside.max()).nonzero()[:, 0]
        found.append((first + int(looked[0]), first + int(looked[-1])))
    return found


def joined(weights: list[Tensor]) -> Tensor:
    """The mean of heads' weights [T,S], each frame's column scaled to deviation 1 over tokens, as Whisper's are."""
    stacked = torch.stack(weights).float()
    if stacked.shape[1] < 2:
        return stacked.mean(0)
    deviation, mean = torch.std_mean(stacked, 1, keepdim=True, correction=0)
    return ((stacked - mean) / deviation.clamp(min=1e-6)).mean(0)
