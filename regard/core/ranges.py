"""Ranges: which keys each query may see, as a union of intervals per row.

A mask is never a dense n × n matrix here. Row i sees the keys of memory slots

    visible(i) = [start_i0, stop_i0) ∪ [start_i1, stop_i1) ∪ …

The intervals of a row are sorted and disjoint; an unused one is empty (start == stop). Ranges are exact: whatever
a mask can say, `encode` says in intervals, by run-length encoding it a strip of rows at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from regard.errors import UserError

STRIP_BYTES = 16 << 20
MAX_RUNS = 64
FEW_RUNS = 4


class TooManyRuns(ValueError):
    """A row of the mask falls into more intervals than a range table may hold."""


@dataclass(frozen=True, eq=False)
class Ranges:
    """start, stop: int32 [batch or 1, heads or 1, queries, R]; num_keys: the length of the key axis."""

    start: Tensor
    stop: Tensor
    num_keys: int

    @property
    def num_queries(self) -> int:
        return self.start.shape[2]

    def rows(self, begin: int, end: int) -> Ranges:
        """The same for the queries begin … end-1."""
        return Ranges(self.start[:, :, begin:end], self.stop[:, :, begin:end], self.num_keys)

    def head_slice(self, heads: slice | list[int]) -> Ranges:
        """The same for some heads (a table shared by all heads stays shared)."""
        if self.start.shape[1] == 1:
            return self
        return Ranges(self.start[:, heads], self.stop[:, heads], self.num_keys)

    def hull(self) -> tuple[int, int]:
        """The smallest key interval that holds everything any of these rows sees; (0, 0) if nothing."""
        some = self.stop > self.start
        if not bool(some.any()):
            return 0, 0
        return int(self.start[some].min()), int(self.stop[some].max())

    def dense(self, begin: int = 0, end: int | None = None) -> Tensor:
        """bool [batch or 1, heads or 1, queries, end - begin]: for a strip of rows, never for a whole long input."""
        end = self.num_keys if end is None else end
        if self.start.shape[3] > FEW_RUNS:
            return self._dense_by_edges(begin, end)
        key = torch.arange(begin, end, device=self.start.device, dtype=torch.int32)
        seen = torch.zeros((*self.start.shape[:3], end - begin), dtype=torch.bool, device=self.start.device)
        for r in range(self.start.shape[3]):
            seen |= (key >= self.start[..., r, None]) & (key < self.stop[..., r, None])
        return seen

    def _dense_by_edges(self, begin: int, end: int) -> Tensor:
        """A running count of intervals begun and ended: its work does not grow with intervals times keys."""
        steps = torch.zeros((*self.start.shape[:3], end - begin + 1), dtype=torch.int8, device=self.start.device)
        for edges, sign in ((self.start, 1), (self.stop, -1)):
            at = edges.clamp(begin, end).long() - begin
            steps.scatter_add_(-1, at, torch.full_like(at, sign, dtype=torch.int8))
        return steps.cumsum(-1, dtype=torch.int8)[..., :-1] > 0

    def is_full(self) -> bool:
        """Whether every row sees every key."""
        return self.start.shape[3] == 1 and bool((self.start == 0).all() and (self.stop == self.num_keys).all())

    def is_square_causal(self) -> bool:
        """Whether row i sees exactly the keys 0 … i, as many queries as keys."""
        if self.start.shape[3] != 1 or self.num_queries != self.num_keys:
            return False
        upto = torch.arange(1, self.num_keys + 1, device=self.start.device, dtype=torch.int32)
        return bool((self.start == 0).all() and (self.stop[..., 0] == upto).all())

    def counts(self) -> Tensor:
        """Visible keys per row, int64 [batch or 1, heads or 1, queries]."""
        return (self.stop - self.start).sum(-1, dtype=torch.int64)

    def __and__(self, other: Ranges) -> Ranges:
        return _combine(self, other, lambda a, b: torch.minimum(a, b))

    def __or__(self, other: Ranges) -> Ranges:
        return _combine(self, other, lambda a, b: torch.maximum(a, b))

    def __invert__(self) -> Ranges:
        edge = torch.zeros_like(self.start[..., :1])
        start = torch.cat([edge, self.stop], -1)
        stop = torch.cat([self.start, edge + self.num_keys], -1)
        return _tidy(start, stop, self.num_keys)


def full(num_queries: int, num_keys: int, device: torch.device | str = "cpu") -> Ranges:
    """Every query sees every key."""
    start = torch.zeros((1, 1, num_queries, 1), dtype=torch.int32, device=device)
    return Ranges(start, start + num_keys, num_keys)


def between(start: Tensor, stop: Tensor, num_keys: int) -> Ranges:
    """One interval per row, clamped to the key axis. start, stop: integers [batch or 1, heads or 1, queries]."""
    start = start.clamp(0, num_keys).to(torch.int32)
    stop = torch.maximum(stop.clamp(0, num_keys).to(torch.int32), start)
    return Ranges(start[..., None], stop[..., None], num_keys)


def from_key_flags(flags: Tensor, num_queries: int) -> Ranges:
    """Every query of a batch row sees the flagged keys. flags: bool [batch, keys]."""
    runs = from_dense(flags[:, None, None, :])
    shape = (flags.shape[0], 1, num_queries, runs.start.shape[3])
    return Ranges(runs.start.expand(shape), runs.stop.expand(shape), flags.shape[1])


def from_dense(allowed: Tensor, max_runs: int | None = MAX_RUNS) -> Ranges:
    """Run-length encode bool [batch or 1, heads or 1, queries, keys], exactly.

    Raises TooManyRuns when a row has more than max_runs intervals (None: no limit).
    """
    num_keys = allowed.shape[3]
    padded = torch.nn.functional.pad(allowed, (1, 1))
    rises = ~padded[..., :-1] & padded[..., 1:]
    falls = padded[..., :-1] & ~padded[..., 1:]
    runs = int(rises.sum(-1).amax()) if rises.numel() else 0
    if max_runs is not None and runs > max_runs:
        raise TooManyRuns(f"a row of the mask has {runs} separate intervals of keys; at most {max_runs} are supported")
    shape = (*allowed.shape[:3], max(runs, 1))
    start = torch.full(shape, num_keys, dtype=torch.int32, device=allowed.device)
    stop = start.clone()
    for edges, table in ((rises, start), (falls, stop)):
        where = edges.nonzero(as_tuple=True)
        slot = (edges.cumsum(-1, dtype=torch.int32) - 1)[where]
        table[(*where[:3], slot.long())] = where[3].to(torch.int32)
    return Ranges(start, stop, num_keys)


def encode(
    predicate: Callable[[int, int], Tensor],
    num_queries: int,
    num_keys: int,
    cells_per_row: int = 1,
    max_runs: int | None = MAX_RUNS,
) -> Ranges:
    """Ranges of any mask, one strip of rows at a time.

    predicate(begin, end) gives bool [batch or 1, heads or 1, end - begin, keys] for the queries begin … end-1;
    cells_per_row is batch × heads of what it returns, used to bound a strip's memory.
    """
    rows = max(1, STRIP_BYTES // max(1, num_keys * cells_per_row * 8))
    table: Ranges | None = None
    for begin in range(0, max(num_queries, 1), rows):
        part = from_dense(predicate(begin, min(begin + rows, num_queries)), max_runs)
        table = placed(table, part, begin, num_queries)
    assert table is not None
    return table


def placed(table: Ranges | None, part: Ranges, begin: int, num_queries: int) -> Ranges:
    """The table of all queries with those from `begin` on filled in; None begins one. Widened where the part is wider.

    Filled in place: parts kept until the end would be small blocks among the large ones of each strip.
    """
    width = part.start.shape[3]
    if table is None:
        empty = part.start.new_full((*part.start.shape[:2], num_queries, width), part.num_keys)
        table = Ranges(empty, empty.clone(), part.num_keys)
    wider = width - table.start.shape[3]
    if wider > 0:
        start, stop = (
            torch.nn.functional.pad(side, (0, wider), value=part.num_keys) for side in (table.start, table.stop)
        )
        table = Ranges(start, stop, part.num_keys)
    for whole, some in ((table.start, part.start), (table.stop, part.stop)):
        whole[:, :, begin : begin + part.num_queries, :width] = some
    return table


def _combine(a: Ranges, b: Ranges, join: Callable[[Tensor, Tensor], Tensor]) -> Ranges:
    """Sweep the sorted edges of both tables: membership of each elementary interval is joined by and / or."""
    if a.num_keys != b.num_keys:
        raise UserError(f"ranges over {a.num_keys} and {b.num_keys} keys do not combine; make both over the same keys")
    widest = max(a.start.shape[3], b.start.shape[3])
    if widest > MAX_RUNS:
        raise TooManyRuns(f"a row of a mask has {widest} separate intervals of keys; at most {MAX_RUNS} are supported")
    shape = torch.broadcast_shapes(a.start.shape[:3], b.start.shape[:3])
    a_start, a_stop = (t.expand(*shape, t.shape[3]) for t in (a.start, a.stop))
    b_start, b_stop = (t.expand(*shape, t.shape[3]) for t in (b.start, b.stop))
    edges = torch.cat([a_start, a_stop, b_start, b_stop], -1).sort(-1).values
    left, right = edges[..., :-1], edges[..., 1:]
    kept = join(_holds(a_start, a_stop, left), _holds(b_start, b_stop, left)).bool() & (right > left)
    start = torch.where(kept, left, a.num_keys)
    stop = torch.where(kept, right, a.num_keys)
    return _tidy(start, stop, a.num_keys)


def _holds(start: Tensor, stop: Tensor, point: Tensor) -> Tensor:
    """int [.., points]: 1 where a point lies in one of the row's intervals."""
    inside = torch.zeros_like(point)
    for r in range(start.shape[-1]):
        inside |= ((point >= start[..., r, None]) & (point < stop[..., r, None])).to(inside.dtype)
    return inside


def _tidy(start: Tensor, stop: Tensor, num_keys: int) -> Ranges:
    """Sort a row's intervals, join those that touch, drop unused columns. Intervals must not overlap."""
    start = torch.where(stop > start, start, num_keys)
    stop = torch.where(start < num_keys, stop, num_keys)
    order = torch.argsort(start, dim=-1, stable=True)
    start, stop = start.gather(-1, order), stop.gather(-1, order)
    empty = start == num_keys
    joins_previous = torch.zeros_like(empty)
    joins_previous[..., 1:] = (start[..., 1:] == stop[..., :-1]) & ~empty[..., 1:]
    opens = ~joins_previous & ~empty
    group = opens.cumsum(-1) - 1
    width = max(1, int(opens.sum(-1).amax())) if opens.numel() else 1
    if width > MAX_RUNS:
        raise TooManyRuns(f"a row of the mask has {width} separate intervals of keys; at most {MAX_RUNS} are supported")
    new_start = torch.full((*start.shape[:-1], width + 1), num_keys, dtype=torch.int32, device=start.device)
    new_stop = torch.zeros_like(new_start)
    slot = torch.where(empty, width, group.clamp(min=0))
    new_start.scatter_reduce_(-1, slot, start.to(torch.int32), "amin")
    new_stop.scatter_reduce_(-1, slot, torch.where(empty, 0, stop).to(torch.int32), "amax")
    new_start, new_stop = new_start[..., :width], new_stop[..., :width]
    return Ranges(new_start, torch.where(new_start == num_keys, num_keys, new_stop), num_keys)
