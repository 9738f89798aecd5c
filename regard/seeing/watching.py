"""Watching one layer: its statistics' states, fed by calls of a mechanism, through a fused backend or in strips.

The output of a layer never depends on being watched: this code reads queries and keys after the fact, draws no
random number and computes its own row maxima and sums.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from regard import core
from regard.core.ranges import Ranges
from regard.evaluate import prepared
from regard.inputs import Inputs
from regard.lower import lower
from regard.mechanism import Mechanism
from regard.run import strips
from regard.run.backend import Backend, PassedOver
from regard.seeing.statistics import Overview, cells
from regard.statistic import Block, State, Statistic, View


@dataclass(eq=False)
class Watching:
    """The live states of one layer's statistics; `fused` are the backends to try, in turn, before strips.

    used: who reduced weights; output_by: who also made an output; passed_over: who did not, and why.
    """

    statistics: Sequence[Statistic]
    fused: Sequence[Backend] = ()
    states: dict[str, State] = field(default_factory=dict)
    undefined: dict[str, str] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    output_by: set[str] = field(default_factory=set)
    passed_over: set[PassedOver] = field(default_factory=set)

    @torch.no_grad()
    def absorb(
        self, mechanism: Mechanism, x: Inputs, view: View, rows: slice, first_key: int, key_scale: Tensor | None
    ) -> Tensor | None:
        """Take in one call: x holds the queries of slots `rows` and the keys from slot `first_key` on.

        key_scale: ‖v_j W_O‖ float32 [B,H,Tk], needed only by norm-weighted statistics. Where x has values, the output
        [B,H,Tq,Dv] that the fused backend made in the same walk (the bits it gives unwatched), or None if it did not.
        """
        x = prepared(mechanism, x)
        mechanism = mechanism.replace(prepare=(), mix=mechanism.mix if x.v is not None else None)
        out = None
        for of in ("weights", "norm"):
            wanted = [s for s in self.statistics if s.of == of and self._is_defined(s, view)]
            scale = key_scale if of == "norm" else None
            left, made = self._absorb_fused(mechanism, x, view, rows, first_key, scale, wanted)
            out = made if out is None else out
            if left:
                self._absorb_strips(mechanism, x, view, rows, first_key, scale, left)
        return out

    def _is_defined(self, statistic: Statistic, view: View) -> bool:
        reason = statistic.undefined(view)
        if reason is not None:
            self.undefined[statistic.label] = reason
            self.states.pop(statistic.label, None)
            return False
        if statistic.label in self.undefined:
            return False
        if statistic.label not in self.states:
            self.states[statistic.label] = statistic.start(view)
        return True

    def _absorb_fused(
        self,
        mechanism: Mechanism,
        x: Inputs,
        view: View,
        rows: slice,
        first_key: int,
        scale: Tensor | None,
        wanted: list[Statistic],
    ) -> tuple[list[Statistic], Tensor | None]:
        """Reduce on a fused backend what it can; the statistics that are left for strips, and the output if made."""
        asked = [(s, records) for s in wanted if (records := s.core(view, rows)) is not None]
        for statistic in wanted:
            if statistic not in [s for s, _ in asked]:
                self._left_to_strips(f"{statistic.label}: is a statistic with no form in the core vocabulary")
        if not asked or not self.fused:
            return wanted, None
        if first_key != 0 or x.k.shape[2] != view.key.length:
            self._left_to_strips("keys: are a part of their axis, and weights are reduced along all of it")
            return wanted, None
        plan = lower(mechanism, x)
        if isinstance(plan, core.Refusal):
            self._left_to_strips(str(plan))
            return wanted, None
        records, places = _without_repeats([group for _, group in asked])
        watch = core.Watch(records, scale, view.query.valid[:, rows])
        fused = self._first_that_can(plan, watch)
        if fused is None:
            return wanted, None
        result = fused.run(plan, watch, output=plan.v is not None)
        self.used.add(fused.name)
        self.output_by |= set() if result.out is None else {fused.name}
        results = [tuple(result.statistics[place] for place in group) for group in places]
        for (statistic, group), found in zip(asked, results, strict=True):
            if isinstance(statistic, Overview):
                assert isinstance(group[0], core.Pool)
                found = (*found, allowed_per_cell(plan.ranges, watch.counted, group[0], x.q.shape[0]))
            label = statistic.label
            self.states[label] = statistic.place(self.states[label], found, view, rows)
        done = {statistic.label for statistic, _ in asked}
        return [s for s in wanted if s.label not in done], result.out

    def _first_that_can(self, plan: core.Plan, watch: core.Watch) -> Backend | None:
        reasons: dict[str, str] = {}
        for fused in self.fused:
            reason = fused.refuses(plan, watch, False)
            if reason is None:
                self._note(fused.name, reasons)
                return fused
            reasons[fused.name] = reason
        self._note("strips", reasons)
        return None

    def _left_to_strips(self, reason: str) -> None:
        self._note("strips", {fused.name: reason for fused in self.fused})

    def _note(self, taken: str, reasons: Mapping[str, str]) -> None:
        self.passed_over |= {PassedOver(name, taken, reason) for name, reason in reasons.items()}

    def _absorb_strips(
        self,
        mechanism: Mechanism,
        x: Inputs,
        view: View,
        rows: slice,
        first_key: int,
        scale: Tensor | None,
        wanted: list[Statistic],
    ) -> None:
        self.used.add("strips")

        def absorb(strip: slice, keys: slice, weights: Tensor, allowed: Tensor | None) -> None:
            at_rows = slice(rows.start + strip.start, rows.start + strip.stop)
            at_keys = slice(first_key + keys.start, first_key + keys.stop)
            query = view.query.part(at_rows)
            if not bool(query.valid.all()):
                weights = weights * query.valid[:, None, :, None]
            if scale is not None:
                weights = weights * scale[:, :, None, keys]
            block = Block(weights, allowed, at_rows, at_keys, query, view.key.part(at_keys))
            for statistic in wanted:
                self.states[statistic.label] = statistic.absorb(self.states[statistic.label], block, view)

        strips.attend(mechanism, x, output=False, absorb=absorb, strip_bytes=8 << 20)

    def finish(self, view: View) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor]]:
        """(results, summaries) by label."""
        results, summaries = {}, {}
        for statistic in self.statistics:
            state = self.states.get(statistic.label)
            if state is not None:
                found = statistic.finish(state, view)
                results[statistic.label] = found
                summaries[statistic.label] = statistic.summary(found, view)
        return results, summaries


def _without_repeats(
    groups: list[tuple[core.CoreStatistic, ...]],
) -> tuple[tuple[core.CoreStatistic, ...], list[list[int]]]:
    """The distinct records, and where each group's are among them (those without data are shared)."""
    kept: list[core.CoreStatistic] = []
    places: list[list[int]] = []
    for group in groups:
        places.append([])
        for record in group:
            same = [i for i, other in enumerate(kept) if type(other) is type(record) and not vars(record)]
            if not same:
                kept.append(record)
            places[-1].append(same[0] if same else len(kept) - 1)
    return tuple(kept), places


def allowed_per_cell(ranges: Ranges, counted: Tensor | None, pool: core.Pool, batch: int) -> Tensor:
    """Allowed pairs of counted rows in each cell of a Pool. float64 [B, heads or 1, row cells, key cells]."""
    side = 1 << pool.key_shift
    num_cells = cells(ranges.num_keys, pool.key_shift)
    begin = torch.arange(num_cells, device=ranges.start.device, dtype=torch.int32) * side
    lead = pool.query_offset & ((1 << pool.query_shift) - 1)
    num_rows = ranges.num_queries
    cell_of_row = (torch.arange(num_rows, device=begin.device) + lead) >> pool.query_shift
    total = ranges.start.new_zeros((batch, ranges.start.shape[1], int(cell_of_row[-1]) + 1, num_cells)).double()
    step = max(1, (4 << 20) // max(1, num_cells))
    for i in range(0, num_rows, step):
        part = ranges.rows(i, min(i + step, num_rows))
        pairs = _overlap(part, begin, side).double().expand(batch, -1, -1, -1)
        if counted is not None:
            pairs = pairs * counted[:, None, i : i + step, None]
        total.index_add_(2, cell_of_row[i : i + step], pairs)
    return total


def _overlap(ranges: Ranges, begin: Tensor, side: int) -> Tensor:
    """int32 [.., rows, cells]: how many visible keys of each row lie in the cells [begin, begin + side)."""
    inside = torch.zeros_like(ranges.start[..., :1]) * begin
    for r in range(ranges.start.shape[3]):
        start, stop = ranges.start[..., r, None], ranges.stop[..., r, None]
        inside += (torch.minimum(stop, begin + side) - torch.maximum(start, begin)).clamp(min=0)
    return inside
