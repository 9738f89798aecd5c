"""Layouts: how logical positions map to memory, where that is not a dense [batch, heads, tokens, width].

Ragged: documents side by side in one packed [tokens, heads, width]; nothing is padded and nothing crosses.
Paged: a pool of pages that sequences own by table; a page holds some tokens of every key-value head.

A page stores keys with a feature of all its tokens side by side, so that one load takes a feature of many tokens:

    key_pages   [pages, G, Dk, page_size]      value_pages [pages, G, page_size, Dv]

`ragged.py` and `paged.py` compute attention over them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from regard.core.ranges import Ranges

PAGE_SIZES = (16, 32, 64, 128, 256)


@dataclass(frozen=True, eq=False)
class Ragged:
    """cu_query, cu_key: int32 [S + 1], ascending from 0: document s holds the tokens cu[s] … cu[s + 1] - 1."""

    cu_query: Tensor
    cu_key: Tensor

    def __post_init__(self) -> None:
        for name, cu in (("cu_query", self.cu_query), ("cu_key", self.cu_key)):
            if cu.ndim != 1 or cu.numel() < 1 or int(cu[0]) != 0 or bool((cu[1:] < cu[:-1]).any()):
                raise ValueError(f"{name} must be ascending integers [documents + 1] from 0, got {cu.tolist()[:8]} …")
        if self.cu_query.shape != self.cu_key.shape:
            raise ValueError(f"{len(self.cu_query) - 1} documents of queries and {len(self.cu_key) - 1} of keys")

    @property
    def num_documents(self) -> int:
        return self.cu_query.numel() - 1

    def positions(self) -> tuple[Tensor, Tensor]:
        """int64 positions of all queries and keys: keys count from 0, the last query stands at the last key."""
        lengths = (self.cu_key[1:] - self.cu_key[:-1]) - (self.cu_query[1:] - self.cu_query[:-1])
        return _place_in_document(self.cu_query) + _repeat(self.cu_query, lengths), _place_in_document(self.cu_key)

    def causal(self, window: int | None = None, sinks: int = 0) -> Ranges:
        """Ranges [1, 1, queries, 1 or 2] in each document's own key slots: up to the own position, within a window
        of so many tokens and the first `sinks`, where given."""
        own = self.positions()[0]
        stop = (own + 1).clamp(min=0)
        start = torch.zeros_like(own) if window is None else (stop - window).clamp(min=0)
        first_stop = torch.minimum(stop.clamp(max=sinks), start)
        pairs = [(start, stop)] if sinks == 0 else [(torch.zeros_like(own), first_stop), (start, stop)]
        table = [torch.stack([pair[i] for pair in pairs], -1)[None, None].to(torch.int32) for i in (0, 1)]
        return Ranges(table[0], table[1], self.longest_key())

    def full(self) -> Ranges:
        """Ranges [1, 1, queries, 1]: every query sees every key of its document."""
        stop = _repeat(self.cu_query, self.cu_key[1:] - self.cu_key[:-1]).to(torch.int32)[None, None, :, None]
        return Ranges(torch.zeros_like(stop), stop, self.longest_key())

    def longest_key(self) -> int:
        """The number of keys of the longest document."""
        return int((self.cu_key[1:] - self.cu_key[:-1]).amax()) if self.num_documents else 0


def _repeat(cu: Tensor, values: Tensor) -> Tensor:
    """values[s] for every token of document s, int64."""
    return values.long().repeat_interleave((cu[1:] - cu[:-1]).long())


def _place_in_document(cu: Tensor) -> Tensor:
    return torch.arange(int(cu[-1])) - _repeat(cu, cu[:-1])


@dataclass(frozen=True, eq=False)
class Paged:
    """block_table int32 [S, pages]: the pages of each sequence, in order; lengths int32 [S]: its tokens.

    page_size: tokens of a page. Entries beyond a sequence's last page are not read.
    """

    block_table: Tensor
    lengths: Tensor
    page_size: int

    def __post_init__(self) -> None:
        if self.page_size not in PAGE_SIZES:
            raise ValueError(f"pages hold {PAGE_SIZES} tokens, got {self.page_size}")
        if self.block_table.ndim != 2 or self.lengths.shape != self.block_table.shape[:1]:
            raise ValueError(
                f"block_table must be [sequences, pages] and lengths [sequences], got {list(self.block_table.shape)} "
                f"and {list(self.lengths.shape)}"
            )
        if self.lengths.device.type != "cpu":
            return  # asking would wait for the GPU
        if self.lengths.numel() and int(self.lengths.max()) > self.block_table.shape[1] * self.page_size:
            raise ValueError(f"a sequence of {int(self.lengths.max())} tokens does not fit its pages")

    def documents(self, cu_query: Tensor | None = None) -> Ragged:
        """The sequences as documents: their keys side by side, and of each the newest cu_query[s + 1] - cu_query[s]
        tokens as queries; by default one."""
        sequences = self.lengths.numel()
        cu_key = torch.zeros(sequences + 1, dtype=torch.int32)
        cu_key[1:] = self.lengths.cumsum(0)
        return Ragged(torch.arange(sequences + 1, dtype=torch.int32) if cu_query is None else cu_query, cu_key)
