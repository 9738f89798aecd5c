"""Layouts: how the logical tokens of an attention call lie in memory.

Dense: tensors [batch, heads, tokens, width].
Ragged: documents side by side in one packed [tokens, heads, width]; nothing is padded and nothing crosses.
Paged: keys and values in a pool of pages that sequences own by table; the queries are packed.

A page stores keys with a feature of all its tokens side by side, so that one load takes a feature of many tokens:

    key_pages   [pages, G, Dk, page_size]      value_pages [pages, G, page_size, Dv]

A packed call is a batch of one whose tokens are those of all documents. Positions count from 0 in each document, the
last query stands at the last key, and visible ranges are in each document's own key slots. What depends on the layout
alone is computed once, when it is first read.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from regard.core.ranges import Ranges
from regard.errors import UserError

PAGE_SIZES = (16, 32, 64, 128, 256)


@dataclass(frozen=True, eq=False)
class Dense:
    """q [B,H,Tq,Dk], k [B,G,Tk,Dk], v [B,G,Tk,Dv]."""


DENSE = Dense()


class Packed:
    """What ragged and paged layouts share: documents of so many queries and keys, side by side.

    cu_query, cu_key: integers [documents + 1], ascending from 0: document s holds the tokens cu[s] … cu[s + 1] - 1.
    """

    cu_query: Tensor
    cu_key: Tensor

    @property
    def num_documents(self) -> int:
        return self.cu_query.numel() - 1

    @cached_property
    def queries(self) -> tuple[int, ...]:
        """cu_query as Python numbers, read from the device once."""
        return tuple(self.cu_query.tolist())

    @cached_property
    def keys(self) -> tuple[int, ...]:
        """cu_key as Python numbers, read from the device once."""
        return tuple(self.cu_key.tolist())

    @cached_property
    def longest_key(self) -> int:
        """The number of keys of the longest document."""
        return max((b - a for a, b in zip(self.keys, self.keys[1:])), default=0)

    @cached_property
    def query_positions(self) -> Tensor:
        """int64 [1, queries]: the last query of a document stands at its last key."""
        ahead = (self.cu_key[1:] - self.cu_key[:-1]) - (self.cu_query[1:] - self.cu_query[:-1])
        return (_index_in_document(self.cu_query, self.queries[-1]) + self.of_queries(ahead))[None]

    @cached_property
    def key_positions(self) -> Tensor:
        """int64 [1, keys]: from 0 in each document."""
        return _index_in_document(self.cu_key, self.keys[-1])[None]

    def of_queries(self, values: Tensor) -> Tensor:
        """values[s] for every query of document s, int64 [queries]."""
        lengths = (self.cu_query[1:] - self.cu_query[:-1]).long()
        return values.long().repeat_interleave(lengths, output_size=self.queries[-1])

    @cached_property
    def every_key(self) -> Ranges:
        """Ranges [1, 1, queries, 1]: every query sees every key of its document."""
        stop = self.of_queries(self.cu_key[1:] - self.cu_key[:-1]).to(torch.int32)[None, None, :, None]
        return Ranges(torch.zeros_like(stop), stop, self.longest_key)

    def causal(self, window: int | None = None, sinks: int = 0) -> Ranges:
        """Ranges [1, 1, queries, 1 or 2]: up to the own position, within a window of so many tokens and the first
        `sinks`, where they are asked for."""
        own = self.query_positions[0]
        stop = (own + 1).clamp(min=0)
        start = torch.zeros_like(own) if window is None else (stop - window).clamp(min=0)
        first_stop = torch.minimum(stop.clamp(max=sinks), start)
        pairs = [(start, stop)] if sinks == 0 else [(torch.zeros_like(own), first_stop), (start, stop)]
        table = [torch.stack([pair[i] for pair in pairs], -1)[None, None].to(torch.int32) for i in (0, 1)]
        return Ranges(table[0], table[1], self.longest_key)


@dataclass(frozen=True, eq=False)
class Ragged(Packed):
    """Documents side by side: q [queries, H, Dk], k [keys, G, Dk], v [keys, G, Dv].

    cu_query, cu_key: integers [documents + 1], ascending from 0. Raises UserError where they are not.
    """

    cu_query: Tensor
    cu_key: Tensor

    def __post_init__(self) -> None:
        for name, cu in (("cu_query", self.cu_query), ("cu_key", self.cu_key)):
            if cu.ndim != 1 or cu.numel() < 1 or int(cu[0]) != 0 or bool((cu[1:] < cu[:-1]).any()):
                raise UserError(f"{name} must be ascending integers [documents + 1] from 0, got {cu.tolist()[:8]} …")
        if self.cu_query.shape != self.cu_key.shape:
            raise UserError(f"{len(self.cu_query) - 1} documents of queries and {len(self.cu_key) - 1} of keys")


@dataclass(frozen=True, eq=False)
class Paged(Packed):
    """Sequences whose keys and values lie in pages: q [new tokens, H, Dk], key_pages and value_pages as above.

    block_table int32 [sequences, pages], or [sequences, G, pages] where each key-value head owns pages of its own: the
    pages of a sequence in order; entries beyond its last page are not read. lengths int32 [sequences]: its tokens, the
    new ones included. page_size: tokens of a page. cu_query: integers [sequences + 1]: the newest
    cu_query[s + 1] - cu_query[s] tokens of sequence s are the queries; by default one each.
    """

    block_table: Tensor
    lengths: Tensor
    page_size: int
    cu_query: Tensor = None  # type: ignore[assignment]  # given, or one query each

    def __post_init__(self) -> None:
        if self.page_size not in PAGE_SIZES:
            raise UserError(f"a page holds one of {PAGE_SIZES} tokens, got {self.page_size}")
        if self.block_table.ndim not in (2, 3) or self.lengths.shape != self.block_table.shape[:1]:
            raise UserError(
                "block_table must be [sequences, pages] or [sequences, heads, pages] and lengths [sequences], got "
                f"{list(self.block_table.shape)} and {list(self.lengths.shape)}"
            )
        sequences = self.lengths.numel()
        if self.cu_query is None:
            one_each = torch.arange(sequences + 1, dtype=torch.int32, device=self.lengths.device)
            object.__setattr__(self, "cu_query", one_each)
        if self.cu_query.shape != (sequences + 1,):
            raise UserError(f"cu_query must be [{sequences + 1}] for {sequences} sequences, got {self.cu_query.shape}")
        if self.lengths.device.type != "cpu":
            return  # asking would wait for the GPU
        if sequences and int(self.lengths.max()) > self.block_table.shape[-1] * self.page_size:
            raise UserError(f"a sequence of {int(self.lengths.max())} tokens does not fit its pages")
        new = self.cu_query[1:] - self.cu_query[:-1]
        if int(self.cu_query[0]) != 0 or bool((new < 0).any()):
            raise UserError(f"cu_query must be ascending integers from 0, got {self.cu_query.tolist()[:8]} …")

    @cached_property
    def cu_key(self) -> Tensor:  # type: ignore[override]
        """int32 [sequences + 1]: the sequences' keys, as if they lay side by side."""
        before = torch.zeros(1, dtype=torch.int32, device=self.lengths.device)
        return torch.cat([before, self.lengths.cumsum(0, dtype=torch.int32)])

    @cached_property
    def table(self) -> Tensor:
        """int32 [sequences, 1 or G, pages], contiguous."""
        table = self.block_table if self.block_table.ndim == 3 else self.block_table[:, None]
        return table.to(torch.int32).contiguous()

    @cached_property
    def sizes(self) -> Tensor:
        """lengths as int32."""
        return self.lengths.to(torch.int32)

    @cached_property
    def slots(self) -> tuple[Tensor, Tensor]:
        """(page, slot in it) of every key: page int64 [1 or G, keys], slot int64 [keys], in the documents' order."""
        at = self.key_positions[0]
        lengths = (self.cu_key[1:] - self.cu_key[:-1]).long()
        sequence = torch.arange(len(lengths), device=at.device).repeat_interleave(lengths, output_size=len(at))
        return self.table[sequence, :, at // self.page_size].long().T, at % self.page_size

    @cached_property
    def _pages_named(self) -> tuple[int, int]:
        """The lowest and the highest page that would be read."""
        count = (self.lengths + self.page_size - 1) // self.page_size
        read = torch.arange(self.table.shape[2], device=count.device) < count[:, None, None]
        pages = self.table[read.expand(self.table.shape)]
        return (int(pages.min()), int(pages.max())) if pages.numel() else (0, -1)

    def check_table(self, num_pages: int) -> None:
        """Raise UserError where a page that would be read does not exist; on a GPU it is not asked."""
        if self.lengths.device.type != "cpu":
            return
        low, high = self._pages_named
        if low < 0 or high >= num_pages:
            wrong = low if low < 0 else high
            sequence = int((self.table == wrong).flatten(1).any(1).nonzero()[0])
            raise UserError(f"block_table names page {wrong} of {num_pages} for sequence {sequence}")


Layout = Dense | Ragged | Paged


def _index_in_document(cu: Tensor, total: int) -> Tensor:
    """0, 1, 2 … in each document, int64 [total]."""
    begins = cu[:-1].long().repeat_interleave((cu[1:] - cu[:-1]).long(), output_size=total)
    return torch.arange(total, device=cu.device) - begins
