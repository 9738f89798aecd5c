"""Watching one layer: its statistics' states, fed by calls of a mechanism, through a fused backend or in strips.

The output of a layer never depends on being watched: this code reads queries and keys after the fact, draws no
random number and computes its own row maxima and sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from regard import core
from regard.evaluate import prepared
from regard.inputs import Inputs
from regard.mechanism import Mechanism
from regard.run import strips
from regard.run.backend import Backend, PassedOver
from regard.run.output import Output, Result
from regard.seeing.asked import Asked, asked
from regard.seeing.kept import Kept
from regard.seeing.step import Step, Where, step
from regard.statistic import Block, Of, State, Statistic, View, Walked

ORDER: tuple[Of, ...] = ("weights", "norm")


@dataclass(frozen=True, eq=False)
class Reduced:
    """What a fused backend gave for the records of one call."""

    wanted: Asked
    results: Sequence[Result]
    walked: Walked


@dataclass(frozen=True, eq=False)
class Ready:
    """A call that one walk reduces whole: what is asked of it, its step, and that step's backend and plan."""

    wanted: Asked
    step: Step
    backend: Backend
    plan: core.Plan


@dataclass(eq=False)
class Watching:
    """The live states of one layer's statistics; `fused` are the backends to try, in turn, before strips.

    kept: where queries and keys are kept, or None. used: who reduced weights; output_by: who also made an output;
    passed_over: who did not, and why.
    """

    statistics: Sequence[Statistic]
    fused: Sequence[Backend] = ()
    kept: Kept | None = None
    undefined: dict[str, str] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    output_by: set[str] = field(default_factory=set)
    passed_over: set[PassedOver] = field(default_factory=set)
    _states: dict[str, State] = field(default_factory=dict)
    _latest: list[Reduced] = field(default_factory=list)

    @property
    def states(self) -> dict[str, State]:
        """The state of each statistic by label. What the latest call gave is merged when states are asked for, or when
        another call comes."""
        while self._latest:
            latest = self._latest.pop(0)
            for statistic, label, indices in latest.wanted.fused:
                results = tuple(latest.results[i] for i in indices)
                self._join(statistic, label, statistic.of_results(results, latest.walked))
        return self._states

    @torch.no_grad()
    def absorb(
        self, mechanism: Mechanism, x: Inputs, view: View, rows: slice, first_key: int, key_scale: Tensor | None
    ) -> Tensor | None:
        """Take in one call: x holds the queries of slots `rows` and the keys from slot `first_key` on.

        key_scale: ‖v_j W_O‖ float32 [B,H,Tk], needed only by norm-weighted statistics. Where x has values, the output
        [B,H,Tq,Dv] that the fused backend made in the same walk (the bits it gives unwatched), or None if it did not.
        """
        if mechanism.prepare:
            x, mechanism = prepared(mechanism, x), mechanism.replace(prepare=())
        if x.v is None and mechanism.mix is not None:
            mechanism = mechanism.replace(mix=None)
        at = Where(view, rows, first_key)
        states: list[Output] = []
        for of in self._weightings:
            scale = key_scale if of == "norm" else None
            wanted = asked(self.statistics, of, view, rows)
            self._leave_out(wanted)
            now = step(mechanism, x, at, wanted, self.fused, self.kept is not None, scale)
            result = self._walk(now, wanted, at)
            if result is not None:
                states.append(result)
            left = wanted.open if result is not None else wanted.defined
            if left:
                self._absorb_strips(mechanism, x, at, scale, left)
            if self.kept is not None and of == self._weightings[0]:
                self._keep(self.kept, mechanism, x, at, now.lowered, result)
        return next((result.out for result in states if result.out is not None), None)

    def ready(self, mechanism: Mechanism, x: Inputs, at: Where) -> Ready | None:
        """What one walk of a fused backend is to reduce of a call; None where one walk is not all that it takes."""
        if mechanism.prepare or x.v is not None or self._weightings != ("weights",):
            return None
        wanted = asked(self.statistics, "weights", at.view, at.rows)
        now = step(mechanism, x, at, wanted, self.fused, self.kept is not None)
        if wanted.open or now.backend is None or now.watch is None or isinstance(now.lowered, core.Refusal):
            return None
        return Ready(wanted, now, now.backend, now.lowered)

    def take(self, q: Tensor, k: Tensor, at: Where, ready: Ready, result: Output) -> None:
        """Take in what a walk gave for a call that is ready, or for one of the same step with these tensors."""
        self._leave_out(ready.wanted)
        self._took(ready.step, ready.wanted, at, result)
        if self.kept is not None:
            self.kept.add(ready.plan.over(q, k, None), at.rows, at.first_key, (result.row_max, result.row_log_sum))

    def _leave_out(self, wanted: Asked) -> None:
        """Drop the statistics that mean nothing in a call."""
        for label in wanted.undefined:
            self.undefined[label] = wanted.undefined[label]
            self.states.pop(label, None)

    @cached_property
    def _weightings(self) -> tuple[Of, ...]:
        """Plain weights first; those as well where nothing but queries and keys is kept."""
        every = {statistic.of for statistic in self.statistics}
        if not every and self.kept is not None:
            return ("weights",)
        return tuple(of for of in ORDER if of in every)

    def _keep(
        self,
        kept: Kept,
        mechanism: Mechanism,
        x: Inputs,
        at: Where,
        lowered: core.Plan | core.Refusal,
        result: Output | None,
    ) -> None:
        if isinstance(lowered, core.Refusal):
            kept.add_open(at.rows, at.first_key, mechanism, x)
            return
        state = (None, None) if result is None else (result.row_max, result.row_log_sum)
        kept.add(lowered, at.rows, at.first_key, state)

    def join(self, statistic: Statistic, label: str, state: State) -> None:
        """Merge the state of some cells into the statistic's own."""
        _ = self.states
        self._join(statistic, label, state)

    def _join(self, statistic: Statistic, label: str, state: State) -> None:
        if label in self.undefined:
            return
        before = self._states.get(label)
        self._states[label] = state if before is None else statistic.merge(before, state)

    def _walk(self, now: Step, wanted: Asked, at: Where) -> Output | None:
        """Reduce on a fused backend what states core records; None where there is none that can."""
        if now.backend is None:
            self.passed_over |= now.passed_over
            return None
        plan = now.lowered
        assert isinstance(plan, core.Plan)
        result = now.backend.walk(plan, now.watch, plan.v is not None)
        self._took(now, wanted, at, result)
        return result

    def _took(self, now: Step, wanted: Asked, at: Where, result: Output) -> None:
        """Note who walked a call; what it gave is merged when it is asked for, or when another call comes."""
        assert now.backend is not None and isinstance(now.lowered, core.Plan)
        if now.passed_over:
            self.passed_over |= now.passed_over
        self.used.add(now.backend.name)
        if result.out is not None:
            self.output_by.add(now.backend.name)
        walked = Walked(at.view, at.rows, now.lowered.ranges, wanted.counted)
        _ = self.states
        self._latest.append(Reduced(wanted, result.statistics, walked))

    # ---- strips -------------------------------------------------------------------------------------------------

    def _absorb_strips(
        self, mechanism: Mechanism, x: Inputs, at: Where, scale: Tensor | None, wanted: Sequence[Statistic]
    ) -> None:
        self.used.add("strips")
        view, rows, first_key = at.view, at.rows, at.first_key

        def absorb(strip: slice, keys: slice, weights: Tensor, allowed: Tensor | None) -> None:
            at_rows = slice(rows.start + strip.start, rows.start + strip.stop)
            at_keys = slice(first_key + keys.start, first_key + keys.stop)
            part = None if scale is None else scale[:, :, keys]
            self._absorb_block(weights, allowed, at_rows, at_keys, view, part, wanted)

        strips.attend(mechanism, x, output=False, absorb=absorb, strip_bytes=8 << 20)

    @torch.no_grad()
    def absorb_weights(
        self,
        strips_of: Callable[[], Iterable[tuple[slice, Tensor]]],
        view: View,
        rows: slice,
        keys: slice,
        made_by: str,
    ) -> None:
        """Take in weights that a model made itself: strips of `rows`, counted from 0, each [B,H,strip,Tk] on `keys`.

        A key whose weight is exactly 0 counts as one that its row may not attend to. Norm-weighted statistics need
        the values and are undefined here.
        """
        self.used.add(made_by)
        for statistic in self.statistics:
            if statistic.of == "norm":
                self.undefined[statistic.label] = f"{statistic.label} needs the values, which are not read in own code"
        wanted = asked(self.statistics, "weights", view, rows)
        self.undefined |= wanted.undefined
        for strip, weights in strips_of() if wanted.defined else ():
            at_rows = slice(rows.start + strip.start, rows.start + strip.stop)
            self._absorb_block(weights, weights != 0, at_rows, keys, view, None, wanted.defined)

    def _absorb_block(
        self,
        weights: Tensor,
        allowed: Tensor | None,
        rows: slice,
        keys: slice,
        view: View,
        scale: Tensor | None,
        wanted: Sequence[Statistic],
    ) -> None:
        """One block at its slots; rows that are padding count nothing. scale: ‖v_j W_O‖ [B,H,keys] or None."""
        query = view.query.part(rows)
        if not bool(query.valid.all()):
            weights = weights * query.valid[:, None, :, None]
        if scale is not None:
            weights = weights * scale[:, :, None]
        block = Block(weights, allowed, rows, keys, query, view.key.part(keys))
        for statistic in wanted:
            self.join(statistic, statistic.label, statistic.of_block(block, view))

    def finish(self, view: View) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor]]:
        """(results, summaries) by label."""
        results, summaries = {}, {}
        for statistic in self.statistics:
            state = self.states.get(statistic.label)
            if state is not None:
                results[statistic.label] = finished = statistic.finish(state, view)
                summaries[statistic.label] = statistic.summary(finished, view)
        return results, summaries
