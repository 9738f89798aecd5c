"""Weights on some keys, written at the positions of those keys."""

from __future__ import annotations

from torch import Tensor


def scattered(weights: Tensor, at: Tensor, num_keys: int) -> Tensor:
    """[B, H, rows, num_keys] from weights [B, H, rows, K] on the keys `at` [B, H, rows, K] (or broadcastable).

    A key that occurs more than once has the sum of its weights, as it counts in the sum over values.
    """
    out = weights.new_zeros(*weights.shape[:-1], num_keys)
    return out.scatter_add_(-1, at.expand(weights.shape), weights)
