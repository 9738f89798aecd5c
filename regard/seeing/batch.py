"""Sequences that a server computes side by side: one packed call of a layer, watched for each sequence apart.

The batch may change from step to step; a state belongs to its sequence. One walk reduces the rows of all, and what it
gives is handed to each sequence by slicing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from regard import core
from regard.core.layout import Packed
from regard.core.ranges import Ranges
from regard.evaluate import prepared
from regard.inputs import Inputs
from regard.lower import lower
from regard.mechanism import Mechanism
from regard.run.backend import Backend
from regard.run.documents import dense_inputs, dense_plans
from regard.run.output import Result
from regard.seeing.asked import Asked, asked
from regard.seeing.watching import Watching
from regard.statistic import Statistic, View, Walked


@dataclass(frozen=True, eq=False)
class Batch:
    """The sequences of one step: their views (batch 1), the slots of their new rows, and how their tokens lie.

    Made once a step and used for all layers. All keys of a sequence are in the call, its new ones included.
    """

    statistics: Sequence[Statistic]
    views: Sequence[View]
    rows: Sequence[slice]
    layout: Packed

    @torch.no_grad()
    def absorb(
        self, watchings: Sequence[Watching], mechanism: Mechanism, x: Inputs, backends: Sequence[Backend] = ()
    ) -> Tensor | None:
        """Take in one layer's call, x packed; watchings: the layer's, one for each sequence.

        Where x has values, the output [1,H,Tq,Dv] that a fused backend made in the same walk, or None if it did not.
        """
        x, mechanism = prepared(mechanism, x), mechanism.replace(prepare=())
        if x.v is None:
            mechanism = mechanism.replace(mix=None)
        plan = lower(mechanism, x) if self._packable else None
        watch = core.Watch(self._records, None, self._counted) if isinstance(plan, core.Plan) else None
        backend = next((b for b in backends if isinstance(plan, core.Plan) and b.refuses(plan, watch) is None), None)
        if backend is None or not isinstance(plan, core.Plan):
            self._one_by_one(watchings, mechanism, x)
            return None
        output = backend.walk(plan, watch, plan.v is not None)
        self._hand_out(watchings, plan, output.statistics, backend)
        for watching in watchings:
            watching.used.add(backend.name)
            watching.undefined.update(self._asked[0].undefined)
        return output.out

    def _one_by_one(self, watchings: Sequence[Watching], mechanism: Mechanism, x: Inputs) -> None:
        """Each sequence as a dense call of its own."""
        plain = x.replace(v=None)
        present = [i for i, (a, b) in enumerate(zip(self.layout.queries, self.layout.queries[1:])) if a < b]
        for i, (_, _, own) in zip(present, dense_inputs(plain), strict=True):
            watchings[i].absorb(mechanism.replace(mix=None), own, self.views[i], self.rows[i], 0, None)

    def _hand_out(
        self, watchings: Sequence[Watching], plan: core.Plan, results: Sequence[Result], backend: Backend
    ) -> None:
        queries, keys = self.layout.queries, self.layout.keys
        for i, (watching, wanted) in enumerate(zip(watchings, self._asked, strict=True)):
            own_rows = slice(queries[i], queries[i + 1])
            if own_rows.start == own_rows.stop:
                continue
            parts = {"queries": own_rows, "keys": slice(keys[i], keys[i + 1])}
            own: dict[int, Any] = {}
            for at, result in zip(self._together, results, strict=True):
                own[at] = _of_sequence(wanted.records[at], result, i, parts)
            if self._apart:
                own |= self._pooled(i, plan, wanted, backend)
            seen = plan.ranges.rows(own_rows.start, own_rows.stop)
            walked = Walked(self.views[i], self.rows[i], _up_to(seen, self.views[i].key.length), wanted.counted)
            for statistic, label, indices in wanted.fused:
                watching.join(statistic, label, statistic.of_results(tuple(own[at] for at in indices), walked))

    def _pooled(self, sequence: int, plan: core.Plan, wanted: Asked, backend: Backend) -> dict[int, Any]:
        """Maps of several sequences have no one shape, so each is a walk of its own."""
        queries = self.layout.queries
        dense = next(own for rows, own in dense_plans(plan) if rows.start == queries[sequence])
        watch = core.Watch(tuple(wanted.records[at] for at in self._apart), None, wanted.counted)
        return dict(zip(self._apart, backend.walk(dense, watch, False).statistics, strict=True))

    @cached_property
    def _asked(self) -> list[Asked]:
        pairs = zip(self.views, self.rows, strict=True)
        return [asked(self.statistics, "weights", view, rows) for view, rows in pairs]

    @cached_property
    def _packable(self) -> bool:
        """Whether one walk serves all: plain weights, core records for everything, the same of every sequence."""
        kinds = {tuple(map(type, one.records)) for one in self._asked}
        closed = all(not one.open and one.records for one in self._asked)
        return len(kinds) == 1 and closed and all(s.of == "weights" for s in self.statistics)

    @cached_property
    def _apart(self) -> tuple[int, ...]:
        """Records that are walked for each sequence alone."""
        return tuple(i for i, record in enumerate(self._asked[0].records) if isinstance(record, core.Pool))

    @cached_property
    def _together(self) -> tuple[int, ...]:
        return tuple(i for i in range(len(self._asked[0].records)) if i not in self._apart)

    @cached_property
    def _records(self) -> tuple[core.CoreStatistic, ...]:
        return tuple(_side_by_side([one.records[at] for one in self._asked]) for at in self._together)

    @cached_property
    def _counted(self) -> Tensor:
        return torch.cat([one.counted for one in self._asked], 1)


def _side_by_side(records: list[core.CoreStatistic]) -> core.CoreStatistic:
    """One record for all sequences: what it says of tokens one after the other, of numbers the largest."""
    values: dict[str, Any] = {}
    for f in fields(records[0]):
        each = [getattr(record, f.name) for record in records]
        values[f.name] = torch.cat(each, -1) if isinstance(each[0], Tensor) else max(each)
    return type(records[0])(**values)


def _of_sequence(record: core.CoreStatistic, result: Any, sequence: int, parts: dict[str, slice]) -> Any:
    """A sequence's own part of a packed result, with a batch of one."""
    if isinstance(result, tuple):
        return tuple(_of_sequence(record, part, sequence, parts) for part in result)
    if isinstance(record, core.DistanceHistogram):
        return result[sequence : sequence + 1]
    return result[:, :, parts["keys" if isinstance(record, core.ColumnMass) else "queries"]]


def _up_to(seen: Ranges, num_keys: int) -> Ranges:
    return Ranges(seen.start, seen.stop, num_keys)
