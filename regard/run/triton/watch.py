"""From a Watch to one launch of the statistics kernel: where results go, and how partial ones are joined."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from regard import core
from regard.run.triton.arguments import Cells, Line, Watch, Watched, line, line_of_tokens
from regard.run.triton.calls import Prepared, launch
from regard.run.triton.shapes import STATISTICS, Shape, power_of_two

Result = Tensor | tuple[Tensor, ...]

SLICES = 16


@dataclass(frozen=True, eq=False)
class Wanted:
    """A watch by kind of record; of a kind that carries no data, or may occur once, the first stands for all."""

    watch: core.Watch
    sums: tuple[core.RowSum, ...]
    matches: tuple[core.RowMatch, ...]
    top: core.TopK | None
    histogram: core.DistanceHistogram | None
    pool: core.Pool | None

    def has(self, kind: type[core.CoreStatistic]) -> bool:
        return any(isinstance(s, kind) for s in self.watch.statistics)

    def place_of_sum(self, record: core.CoreStatistic) -> int:
        """Where a record's sum lies among all sums of the kernel: features, then matches, then the distance."""
        found = [n for n, other in enumerate((*self.sums, *self.matches)) if other is record]
        return found[0] if found else len(self.sums) + len(self.matches)


def wanted_of(watch: core.Watch) -> Wanted:
    """Sort a watch by kind."""

    def all_of(kind: type) -> tuple[core.CoreStatistic, ...]:
        return tuple(s for s in watch.statistics if isinstance(s, kind))

    def one_of(kind: type) -> core.CoreStatistic | None:
        return next(iter(all_of(kind)), None)

    return Wanted(
        watch,
        cast("tuple[core.RowSum, ...]", all_of(core.RowSum)),
        cast("tuple[core.RowMatch, ...]", all_of(core.RowMatch)),
        cast("core.TopK | None", one_of(core.TopK)),
        cast("core.DistanceHistogram | None", one_of(core.DistanceHistogram)),
        cast("core.Pool | None", one_of(core.Pool)),
    )


def statistics(ready: Prepared, watch: core.Watch, row_max: Tensor, row_log_sum: Tensor) -> tuple[Result, ...]:
    """What each watched record gives, in order, from the rows' state of the forward walk."""
    if not watch.statistics:
        return ()
    wanted, shape = wanted_of(watch), ready.shape(STATISTICS)
    work = Work(ready, wanted, shape)
    work.run(row_max, row_log_sum)
    return tuple(work.result(record) for record in watch.statistics)


class Work:
    """One launch: inputs stacked, results allocated, partial ones joined in a fixed order."""

    def __init__(self, ready: Prepared, wanted: Wanted, shape: Shape) -> None:
        plan = ready.plan
        self.ready, self.wanted, self.shape = ready, wanted, shape
        self.batch, self.heads, self.queries, _ = plan.q.shape
        self.keys = plan.k.shape[2]
        self.offset = 0 if wanted.pool is None else wanted.pool.query_offset
        self.lead = self.offset % shape.rows
        self.num_blocks = -(-(self.lead + self.queries) // shape.rows)
        self.num_slices = self._slices()
        self.inputs: list[Tensor] = []
        rows = (self.batch, self.heads, self.queries)
        self.entropy = self._empty(rows) if wanted.has(core.RowEntropy) else None
        self.maximum = self._empty(rows) if wanted.has(core.RowMax) else None
        self.num_sums = len(wanted.sums) + len(wanted.matches) + wanted.has(core.RowDistance)
        self.sums = self._empty((self.num_sums, *rows)) if self.num_sums else None
        top = 0 if wanted.top is None else wanted.top.k
        self.top = (self._empty((*rows, top)), self._empty((*rows, top), torch.int32)) if top else (None, None)
        partial = (self.batch, self.heads, self.num_slices)
        bins = 0 if wanted.histogram is None else wanted.histogram.bins
        self.bins = self._zeros((*partial, bins)) if bins else None
        self.mass = self._zeros((*partial, self.keys)) if wanted.has(core.ColumnMass) else None
        self.pool = self._cells()

    def _empty(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
        return self.ready.plan.q.new_empty(shape, dtype=dtype)

    def _zeros(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> Tensor:
        return self.ready.plan.q.new_zeros(shape, dtype=dtype)

    def _slices(self) -> int:
        """Programs per head: one per block of rows unless they sum over rows. It depends on the call's lengths alone,
        so that results do not depend on the batch; the partial column sums stay within 16 MiB a head."""
        if self.wanted.has(core.ColumnMass):
            return max(1, min(self.num_blocks, SLICES, max(4, (1 << 21) // max(1, self.keys))))
        return max(1, self.num_blocks)

    def _cells(self) -> Cells:
        pool = self.wanted.pool
        if pool is None:
            return Cells(None, None, 0, 0)
        rows = self.num_blocks * (self.shape.rows >> self._row_shift(pool))
        columns = pool.cells(self.queries, self.keys)[1]
        shape = (self.batch, self.heads, rows, columns)
        return Cells(self._zeros(shape), self._zeros(shape, torch.float32), rows, columns)

    def _row_shift(self, pool: core.Pool) -> int:
        return min(pool.query_shift, self.shape.rows.bit_length() - 1)

    # ---- launching --------------------------------------------------------------------------------------------------

    def run(self, row_max: Tensor, row_log_sum: Tensor) -> None:
        """Launch, unless there is nothing to walk; then results that no program writes are zeros."""
        from regard.run.triton.kernels.statistics import statistics_kernel

        if not self.batch * self.heads * self.queries:
            return
        statistics_kernel[(self.num_slices * self.batch * self.heads,)](
            self.ready.call,
            self.ready.tiles(self.shape, self.lead),
            self._watch(),
            row_max,
            row_log_sum,
            self.num_blocks,
            self.num_slices,
            self.lead,
            TERMS=self.ready.kinds,
            LISTED=self.ready.is_listed,
            WATCHED=self._watched(),
            SUMS=power_of_two(self.num_sums),
            PLACES=power_of_two(0 if self.wanted.top is None else self.wanted.top.k),
            BINS=power_of_two(0 if self.wanted.histogram is None else self.wanted.histogram.bins),
            WIDTH=self.ready.widths["WIDTH"],
            PADDED=self.ready.widths["PADDED"],
            **launch(self.shape),
        )

    def _watch(self) -> Watch:
        batch, watch = self.batch, self.wanted.watch
        scale, counted = watch.key_scale, watch.counted
        return Watch(
            line(None if scale is None else scale.float().expand(batch, self.heads, self.keys)),
            line_of_tokens(None if counted is None else counted.to(torch.uint8).expand(batch, self.queries)),
            self._stacked([s.feature.float().expand(batch, -1) for s in self.wanted.sums]),
            self._stacked([m.query_labels.to(torch.int32).expand(batch, -1) for m in self.wanted.matches]),
            self._stacked([m.key_labels.to(torch.int32).expand(batch, -1) for m in self.wanted.matches]),
            self.entropy,
            self.maximum,
            self.sums,
            batch * self.heads * self.queries,
            self.top[0],
            self.top[1],
            self.mass,
            self.bins,
            self.pool,
        )

    def _stacked(self, tensors: list[Tensor]) -> Line:
        """Records [records, batch, tokens] as a line with records in the place of heads."""
        if not tensors:
            return Line(None, 0, 0, 0)
        stack = torch.stack(tensors).contiguous()
        return Line(stack, stack.stride(1), stack.stride(0), stack.stride(2))

    def _watched(self) -> Watched:
        wanted, pool = self.wanted, self.wanted.pool
        return Watched(
            scaled=wanted.watch.key_scale is not None,
            counted=wanted.watch.counted is not None,
            entropy=self.entropy is not None,
            maximum=self.maximum is not None,
            features=len(wanted.sums),
            matches=len(wanted.matches),
            distance=int(wanted.has(core.RowDistance)),
            top=0 if wanted.top is None else wanted.top.k,
            columns=self.mass is not None,
            bins=0 if wanted.histogram is None else wanted.histogram.bins,
            pool=pool is not None,
            row_shift=0 if pool is None else self._row_shift(pool),
            key_shift=0 if pool is None else pool.key_shift,
            key_side=0 if pool is None else min(pool.key_shift, self.shape.keys.bit_length() - 1),
        )

    # ---- results ----------------------------------------------------------------------------------------------------

    def result(self, record: core.CoreStatistic) -> Result:
        """What one record gives."""
        match record:
            case core.RowEntropy():
                return _there(self.entropy)
            case core.RowMax():
                return _there(self.maximum)
            case core.RowSum() | core.RowMatch() | core.RowDistance():
                return _there(self.sums)[self.wanted.place_of_sum(record)]
            case core.TopK():
                return _there(self.top[0]), _there(self.top[1])
            case core.ColumnMass():
                return _there(self.mass).sum(2)
            case core.DistanceHistogram():
                return _there(self.bins).sum(2)
            case core.Pool():
                return self._pooled(record)

    def _pooled(self, pool: core.Pool) -> tuple[Tensor, Tensor]:
        """The cells of this call's rows, from cells anchored at the first block's first slot."""
        rows, _ = pool.cells(self.queries, self.keys)
        first_slot, shift = self.offset - self.lead, self._row_shift(pool)
        height = 1 << (pool.query_shift - shift)
        before = (first_slot >> shift) % height
        skipped = (self.offset >> pool.query_shift) - (first_slot >> pool.query_shift)
        found = []
        for cells, join in ((self.pool.total, "sum"), (self.pool.most, "amax")):
            behind = -(before + cells.shape[2]) % height
            tall = torch.nn.functional.pad(cells, (0, 0, before, behind)).unflatten(2, (-1, height))
            found.append((tall.sum(3) if join == "sum" else tall.amax(3))[:, :, skipped : skipped + rows].contiguous())
        return found[0], found[1]


def _there(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    return tensor
