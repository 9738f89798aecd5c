"""Sums and maxima of a plan's weights over cells of a map, a block at a time, in float32.

A cell of many pairs needs no weight to its last digit, so scores are float32 products, and a band of rows is made,
exponentiated and pooled while it lies in the cache: one walk, and no n × n matrix. Sums and maxima are within 1e-5 of
those of exact weights, relative, for scores up to 100.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from regard import core
from regard.seeing.cells import pooled
from regard.seeing.rectangle import dense_scores, rows_of

BAND_ROWS = 64


def pooled_of(plan: core.Plan, state: Tensor, shifts: tuple[int, int], lead: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Sum and maximum of a_ij = e^{s_ij - state_i} in each cell of 2^shifts tokens, float32 [row cells, key cells].

    plan: of one sequence and one head, without values or sink. state: float64 [rows], m_i + l_i. lead: how many tokens
    of its first cell lie before the plan's first row and key.
    """
    rows, keys = plan.q.shape[2], plan.k.shape[2]
    cells = [-(-(first + size) >> shift) for first, size, shift in zip(lead, (rows, keys), shifts, strict=True)]
    total, most = torch.zeros(cells, device=plan.q.device), torch.zeros(cells, device=plan.q.device)
    side = max(BAND_ROWS, 1 << shifts[0])
    for begin, end in _bands(rows, lead[0], side):
        seen = plan.ranges.rows(begin, end)
        if not bool((seen.stop > seen.start).any()):
            continue
        weights = _weights(rows_of(plan, slice(begin, end)), state[begin:end])
        at = (lead[0] + begin, lead[1])
        first = (at[0] >> shifts[0], at[1] >> shifts[1])
        for into, how in ((total, "sum"), (most, "amax")):
            cells_of = _pooled(weights, at, shifts, how)
            into[first[0] : first[0] + cells_of.shape[0], first[1] :] = cells_of
    return total, most


def _bands(rows: int, lead: int, side: int) -> Sequence[tuple[int, int]]:
    """Bands of `side` rows that begin where cells begin."""
    edges = [0, *range(side - lead % side, rows, side), rows]
    return [(a, b) for a, b in pairwise(edges) if a < b]


def _weights(plan: core.Plan, state: Tensor) -> Tensor:
    """float32 [rows, keys], 0 where a key is not visible."""
    return (dense_scores(plan, torch.float32) - state.float()[:, None]).exp_().nan_to_num_(0.0)


def _pooled(weights: Tensor, at: tuple[int, int], shifts: tuple[int, int], how: str) -> Tensor:
    return pooled(weights[None, None], at, shifts, "sum" if how == "sum" else "amax")[0, 0]
