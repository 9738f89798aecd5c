"""The pages of one layer: a row is a key-value head of a sequence, with a table, a length and tokens of its own.

A row's tokens lie in its pages in any order; `positions` says which is which. What a row gives up is filled by its
last token, and a page without tokens goes back to the pool: memory follows what is kept, head by head.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from regard.run.pages import new_pages, write_pages

PAGE_SIZE = 32
SPARE = 16  # a pool grows by a 16th of what it has, and by a page a row at least


class HeadPages:
    """Keys and values of `rows` rows in pages [pages, 1, …] of one head each.

    table int64 [rows, pages a row], lengths int64 [rows], positions int64 [rows, slots]: -1 where there is no token.
    """

    def __init__(self, rows: int, key_width: int, value_width: int, dtype: torch.dtype, device: torch.device) -> None:
        self.rows = rows
        self.widths, self.dtype, self.device = (key_width, value_width), dtype, device
        self.keys, self.values = new_pages(0, 1, key_width, value_width, PAGE_SIZE, dtype, device)
        self.table = torch.zeros(rows, 0, dtype=torch.int64, device=device)
        self.lengths = torch.zeros(rows, dtype=torch.int64, device=device)
        self.positions = torch.zeros(rows, 0, dtype=torch.int64, device=device)
        self._free: list[int] = []

    @property
    def num_pages(self) -> int:
        """Pages in the pool, free ones too."""
        return self.keys.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values, what is free and what a page has over included."""
        return sum(t.numel() * t.element_size() for t in (self.keys, self.values))

    def claim(self, lengths: Tensor) -> None:
        """Begin with so many tokens in each row, int64 [rows]; what they are is for the caller to write."""
        self._reserve(lengths)
        self.lengths = lengths.clone()

    def fill(self, k: Tensor, v: Tensor, kept: Sequence[Tensor], positions: Sequence[Tensor]) -> None:
        """Begin: row r takes the tokens kept[r] of k[r] [tokens,Dk] and v[r], which stand at positions[r]."""
        counts = torch.tensor([len(tokens) for tokens in kept], device=self.device)
        self.claim(counts)
        row = torch.arange(self.rows, device=self.device).repeat_interleave(counts)
        at = torch.cat([torch.arange(len(tokens), device=self.device) for tokens in kept])
        token = torch.cat(list(kept))
        self.positions[row, at] = torch.cat([p[t] for p, t in zip(positions, kept, strict=True)])
        slots = self._slots(row, at)
        write_pages(k[row, token][:, None], v[row, token][:, None], slots, self.keys, self.values)

    def append(self, k: Tensor, v: Tensor, positions: Tensor) -> None:
        """Add new tokens k [rows,T,Dk], v [rows,T,Dv] at positions [rows,T] to every row."""
        count = k.shape[1]
        self._reserve(self.lengths + count)
        at = self.lengths[:, None] + torch.arange(count, device=self.device)
        row = torch.arange(self.rows, device=self.device)[:, None].expand_as(at)
        self.positions[row, at] = positions
        slots = self._slots(row.flatten(), at.flatten())
        write_pages(k.flatten(0, 1)[:, None], v.flatten(0, 1)[:, None], slots, self.keys, self.values)
        self.lengths = self.lengths + count

    def drop(self, rows: Tensor, at: Tensor, beside: Sequence[Tensor] = ()) -> None:
        """Give up the token in slot at[r] of each of these rows; the row's last token takes its place.

        beside: numbers [rows, slots] that are kept for every token and move with it.
        """
        last = self.lengths[rows] - 1
        to_page, to = self.table[rows, at // PAGE_SIZE], at % PAGE_SIZE
        from_page, place = self.table[rows, last // PAGE_SIZE], last % PAGE_SIZE
        self.keys[to_page, :, :, to] = self.keys[from_page, :, :, place]
        self.values[to_page, :, to] = self.values[from_page, :, place]
        for numbers, nothing in ((self.positions, -1), *((each, 0) for each in beside)):
            numbers[rows, at] = numbers[rows, last]
            numbers[rows, last] = nothing
        self.lengths[rows] = last
        self._free += from_page[place == 0].tolist()

    def _slots(self, row: Tensor, at: Tensor) -> Tensor:
        return self.table[row, at // PAGE_SIZE] * PAGE_SIZE + at % PAGE_SIZE

    def _reserve(self, lengths: Tensor) -> None:
        """Let every row have the pages for so many tokens."""
        have, need = -(-self.lengths // PAGE_SIZE), -(-lengths // PAGE_SIZE)
        missing = (need - have).clamp(min=0)
        total = int(missing.sum())
        if not total:
            return
        widest = int(need.max())
        if widest > self.table.shape[1]:
            wider = widest + widest // SPARE
            self.table = torch.nn.functional.pad(self.table, (0, wider - self.table.shape[1]))
            self.positions = torch.nn.functional.pad(
                self.positions, (0, wider * PAGE_SIZE - self.positions.shape[1]), value=-1
            )
        if total > len(self._free):
            self._grow(total - len(self._free))
        taken, self._free = self._free[-total:], self._free[:-total]
        row = torch.arange(self.rows, device=self.device).repeat_interleave(missing)
        nth = torch.arange(total, device=self.device) - (missing.cumsum(0) - missing)[row]
        self.table[row, have[row] + nth] = torch.tensor(taken, device=self.device)

    def _grow(self, missing: int) -> None:
        before = self.num_pages
        spare = max(self.rows, before // SPARE) if before else 0
        keys, values = new_pages(before + missing + spare, 1, *self.widths, PAGE_SIZE, self.dtype, self.device)
        keys[:before], values[:before] = self.keys, self.values
        self.keys, self.values = keys, values
        self._free += range(before, self.num_pages)
