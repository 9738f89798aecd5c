"""Watching one layer: its statistics' states, fed by calls of a mechanism, through a fused backend or in strips.

The output of a layer never depends on being watched: this code reads queries and keys after the fact, draws no
random number and computes its own row maxima and sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from regard import core
from regard.evaluate import prepared
from regard.inputs import Inputs
from regard.lower import lower
from regard.mechanism import Mechanism
from regard.run import strips
from regard.run.backend import Backend, PassedOver
from regard.run.output import Output
from regard.seeing.asked import Asked, asked
from regard.seeing.kept import Kept
from regard.statistic import Block, State, Statistic, View, Walked


@dataclass(frozen=True, eq=False)
class Seen:
    """One call of a layer's attention: x holds the queries of slots `rows` and the keys from slot `first_key` on.

    lowered: the same in core records, or why not. key_scale: ‖v_j W_O‖ float32 [B,H,Tk], or None for plain weights.
    """

    mechanism: Mechanism
    x: Inputs
    lowered: core.Plan | core.Refusal
    view: View
    rows: slice
    first_key: int
    key_scale: Tensor | None = None


@dataclass(eq=False)
class Watching:
    """The live states of one layer's statistics; `fused` are the backends to try, in turn, before strips.

    kept: where queries and keys are kept, or None. used: who reduced weights; output_by: who also made an output;
    passed_over: who did not, and why.
    """

    statistics: Sequence[Statistic]
    fused: Sequence[Backend] = ()
    kept: Kept | None = None
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
        call = Seen(mechanism, x, lower(mechanism, x), view, rows, first_key)
        weightings = {s.of for s in self.statistics} or ({"weights"} if self.kept is not None else set())
        results = []
        for of in sorted(weightings, reverse=True):  # plain weights first
            scaled = replace(call, key_scale=key_scale) if of == "norm" else call
            results.append(self._absorb(scaled, asked(self.statistics, of, view, rows)))
        walked = [result for result in results if result is not None]
        if self.kept is not None:
            self._keep(self.kept, call, walked)
        return next((result.out for result in walked if result.out is not None), None)

    def _keep(self, kept: Kept, call: Seen, walked: Sequence[Output]) -> None:
        if isinstance(call.lowered, core.Refusal):
            kept.add_open(call.rows, call.first_key, call.mechanism, call.x)
            return
        state = (walked[0].row_max, walked[0].row_log_sum) if walked else (None, None)
        kept.add(call.lowered, call.rows, call.first_key, state)

    def _absorb(self, call: Seen, wanted: Asked) -> Output | None:
        for label, reason in wanted.undefined.items():
            self.undefined[label] = reason
            self.states.pop(label, None)
        for statistic in wanted.open:
            self._left_to_strips(f"{statistic.label}: is a statistic with no form in the core vocabulary")
        result = self._walk(call, wanted)
        left = wanted.open if result is not None else wanted.defined
        if left:
            self._absorb_strips(call, left)
        return result

    def _join(self, statistic: Statistic, state: State) -> None:
        """Merge the state of some cells into the statistic's own."""
        label = statistic.label
        if label in self.undefined:
            return
        before = self.states.get(label)
        self.states[label] = state if before is None else statistic.merge(before, state)

    # ---- fused backends -----------------------------------------------------------------------------------------

    def _walk(self, call: Seen, wanted: Asked) -> Output | None:
        """Reduce on a fused backend what states core records; None where there is none that can."""
        if not self.fused or not (wanted.records or (self.kept is not None and not wanted.open)):
            return None
        plan = call.lowered
        if wanted.records and (call.first_key != 0 or call.x.k.shape[2] != call.view.key.length):
            self._left_to_strips("keys: are a part of their axis, and weights are reduced along all of it")
            return None
        if isinstance(plan, core.Refusal):
            self._left_to_strips(str(plan))
            return None
        watch = core.Watch(wanted.records, call.key_scale, wanted.counted)
        backend = self._first_that_can(plan, watch)
        if backend is None:
            return None
        result = backend.run(plan, watch, output=plan.v is not None)
        self.used.add(backend.name)
        if result.out is not None:
            self.output_by.add(backend.name)
        walked = Walked(call.view, call.rows, plan.ranges, wanted.counted)
        for statistic, at in wanted.fused:
            self._join(statistic, statistic.of_results(tuple(result.statistics[i] for i in at), walked))
        return result

    def _first_that_can(self, plan: core.Plan, watch: core.Watch) -> Backend | None:
        reasons: dict[str, str] = {}
        for backend in self.fused:
            reason = backend.refuses(plan, watch, False)
            if reason is None:
                self._note(backend.name, reasons)
                return backend
            reasons[backend.name] = reason
        self._note("strips", reasons)
        return None

    def _left_to_strips(self, reason: str) -> None:
        self._note("strips", {backend.name: reason for backend in self.fused})

    def _note(self, taken: str, reasons: Mapping[str, str]) -> None:
        if reasons:
            self.passed_over |= {PassedOver(name, taken, reason) for name, reason in reasons.items()}

    # ---- strips -------------------------------------------------------------------------------------------------

    def _absorb_strips(self, call: Seen, wanted: Sequence[Statistic]) -> None:
        self.used.add("strips")
        view, rows, first_key, scale = call.view, call.rows, call.first_key, call.key_scale

        def absorb(strip: slice, keys: slice, weights: Tensor, allowed: Tensor | None) -> None:
            at_rows = slice(rows.start + strip.start, rows.start + strip.stop)
            at_keys = slice(first_key + keys.start, first_key + keys.stop)
            part = None if scale is None else scale[:, :, keys]
            self._absorb_block(weights, allowed, at_rows, at_keys, view, part, wanted)

        strips.attend(call.mechanism, call.x, output=False, absorb=absorb, strip_bytes=8 << 20)

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
            self._join(statistic, statistic.of_block(block, view))

    def finish(self, view: View) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor]]:
        """(results, summaries) by label."""
        results, summaries = {}, {}
        for statistic in self.statistics:
            state = self.states.get(statistic.label)
            if state is not None:
                results[statistic.label] = finished = statistic.finish(state, view)
                summaries[statistic.label] = statistic.summary(finished, view)
        return results, summaries
