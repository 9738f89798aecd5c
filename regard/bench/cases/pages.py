"""Where the tokens of sequences lie in pages: a table of pages, and from it the slot of every token."""

from __future__ import annotations

import torch
from torch import Tensor


def table(lengths: list[int], page_size: int, scatter: torch.Generator | None = None) -> Tensor:
    """int32 [sequences, most pages of any]: pages in order, or drawn at random; 0 beyond a sequence's last page."""
    counts = [-(-length // page_size) for length in lengths]
    order = torch.arange(sum(counts)) if scatter is None else torch.randperm(sum(counts), generator=scatter)
    found = torch.zeros(len(lengths), max(counts), dtype=torch.int32)
    for row, own in zip(found, order.split(counts), strict=True):
        row[: len(own)] = own
    return found


def slots(table: Tensor, lengths: list[int], page_size: int) -> list[Tensor]:
    """int64 [tokens] of each sequence: page · page_size + place."""
    every = (table.long()[:, :, None] * page_size + torch.arange(page_size)).flatten(1)
    return [row[:length] for row, length in zip(every, lengths, strict=True)]
