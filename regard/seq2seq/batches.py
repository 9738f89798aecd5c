"""Batches of about as many tokens each, in an order that depends on the seed and the epoch alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

Rows = list[int]


@dataclass(frozen=True)
class Examples:
    """Token ids of sources and of targets (for a language model, the same list twice)."""

    source: list[list[int]]
    target: list[list[int]]

    def __len__(self) -> int:
        return len(self.source)

    def length(self, row: int) -> int:
        """Tokens that this pair takes in a batch: its longer side."""
        return max(len(self.source[row]), len(self.target[row]))

    def order(self, row: int) -> tuple[int, ...]:
        """By what pairs of a batch are alike."""
        return self.length(row), len(self.source[row])


class Sized(Protocol):
    """Examples that are put into batches: how many there are, what each takes, by what they are alike."""

    def __len__(self) -> int: ...

    def length(self, row: int) -> int: ...

    def order(self, row: int) -> tuple[int, ...]: ...


def epoch_batches(examples: Sized, tokens: int, seed: int, epoch: int) -> list[Rows]:
    """Every example once, shuffled, each batch of similar lengths with at most `tokens` padded tokens a side."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(len(examples), generator=generator).tolist()
    # equal lengths stay in the shuffled order, so batches differ from epoch to epoch
    order.sort(key=examples.order)
    batches = by_tokens(order, examples.length, tokens)
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


def by_tokens(order: Sequence[int], length: Callable[[int], int], tokens: int) -> list[Rows]:
    """Consecutive rows of an order, cut where a batch's rows × longest would pass `tokens`; at least one row each."""
    batches: list[Rows] = []
    longest = 0
    for row in order:
        longest = max(longest, length(row))
        if batches and longest * (len(batches[-1]) + 1) <= tokens:
            batches[-1].append(row)
        else:
            batches.append([row])
            longest = length(row)
    return batches


def padded(sequences: Sequence[Sequence[int]], pad: int) -> Tensor:
    """int64 [N, longest], padded on the right."""
    longest = max(map(len, sequences))
    return torch.tensor([[*ids, *[pad] * (longest - len(ids))] for ids in sequences])
