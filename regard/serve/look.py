"""Attention on request: exact statistics of the rows that a request asks for, while they are in hand.

a_ij is the weight of row i (a query) on key j of its own sequence, of one head of one layer. Per row and layer, of
each head asked for or as a mean over all heads:

    top        the k largest weights and their keys; with heads="mean" of the mean weights over heads
    entropy    -Σ_j a_ij ln a_ij, in nats; with "mean" the mean of the heads' entropies
    sink       Σ_{j < sinks} a_ij
    messages   Σ_j a_ij over the tokens of each span of the prompt, and over all that was written since

and over the rows of an answer, per key:

    received   Σ_i a_ij
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from regard.run import native
from regard.serve.pages import Attends, Pages, StepLayout
from regard.serve.request import Look

STATISTICS = ("top", "entropy", "sink", "messages", "received")


@dataclass(frozen=True, eq=False)
class Seen:
    """What the row at `position` attended to: of each statistic [layers, heads, …]; top as (weights, keys)."""

    position: int
    results: dict[str, tuple[Tensor, ...]]


@dataclass(frozen=True, eq=False)
class Wanted:
    """Positions of one sequence whose attention is asked for. received: float64 [layers, heads, keys] of the rows
    before, which grows; rows: filled by the run, one Seen each."""

    look: Look
    positions: range
    received: Received
    rows: list[Seen]


class Received:
    """Σ_i a_ij of one answer so far, [layers, heads, keys] float64, in storage that doubles."""

    def __init__(self) -> None:
        self._sums: Tensor | None = None
        self._keys = 0

    @property
    def total(self) -> Tensor | None:
        """The sums, None before the first row."""
        return None if self._sums is None else self._sums[:, :, : self._keys]

    def room(self, num_layers: int, heads: int, keys: int) -> Tensor:
        """The storage [layers, heads, ≥ keys], contiguous, to be added to."""
        old = self._sums
        if old is None or old.shape[2] < keys:
            self._sums = torch.zeros((num_layers, heads, max(64, 2 * keys)), dtype=torch.float64)
            if old is not None:
                self._sums[:, :, : old.shape[2]] = old
        assert self._sums is not None
        self._keys = max(self._keys, keys)
        return self._sums

    def add(self, at: slice, mass: Tensor, num_layers: int) -> None:
        """mass [layers of this part, heads, keys] goes to the layers `at`."""
        _, heads, keys = mass.shape
        self.room(num_layers, heads, keys)[at, :, :keys] += mass

    def copy(self) -> Received:
        """An independent sum, for another answer of the same prompt."""
        other = Received()
        other._sums, other._keys = None if self._sums is None else self._sums.clone(), self._keys
        return other


class Looking:
    """The looks of one step: called with every layer's queries, finished when the step is computed."""

    def __init__(self, wanted: Sequence[Wanted | None], num_layers: int) -> None:
        self.wanted = [(i, w) for i, w in enumerate(wanted) if w is not None]
        self.num_layers = num_layers
        from regard.serve.look_native import NativeGroup
        from regard.serve.look_plain import PlainGroup

        groups: dict[Any, list[tuple[int, Wanted]]] = {}
        for i, w in self.wanted:
            groups.setdefault(_alike(w.look), []).append((i, w))
        kind = NativeGroup if native.available() else PlainGroup
        self.groups = [kind(members, num_layers) for members in groups.values()]

    def __call__(self, q: Tensor, how: Attends, layout: StepLayout, pages: Pages) -> None:
        """One layer of the step. q [T,H,D]."""
        for group in self.groups:
            group.layer(q, how, layout, pages)

    def finish(self) -> None:
        """Fill the rows of everything that was wanted."""
        for group in self.groups:
            group.finish()


def _alike(look: Look) -> tuple[Any, ...]:
    """Looks that one pass answers; spans differ by request."""
    return look.statistics, look.layers, look.heads, look.top_k, look.sinks
