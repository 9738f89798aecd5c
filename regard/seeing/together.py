"""Layers of one step side by side: their heads are the heads of one call, which one walk reduces.

What a walk costs before its first product is paid once for all of them, and its threads have all layers to share.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, overload

import torch
from torch import Tensor

from regard import core
from regard.inputs import Inputs
from regard.mechanism import Mechanism
from regard.run.output import Output, Result
from regard.seeing.step import Where
from regard.seeing.watching import Ready, Watching


@dataclass(frozen=True, eq=False)
class LayerCall:
    """A call that one layer's statistics are to take in, as `Watching.absorb` does."""

    watching: Watching
    mechanism: Mechanism
    x: Inputs
    at: Where

    @property
    def first(self) -> LayerCall:
        """The call that says what all that are like it have in common."""
        return self

    @property
    def q(self) -> Tensor:
        return self.x.q

    @property
    def k(self) -> Tensor:
        return self.x.k


@dataclass(frozen=True, eq=False)
class LikeCall:
    """A call like an earlier one with the same statistics, from which it differs in layer, queries and keys alone."""

    watching: Watching
    q: Tensor
    k: Tensor
    layer: int
    first: LayerCall

    @property
    def at(self) -> Where:
        return self.first.at

    @property
    def mechanism(self) -> Mechanism:
        return self.first.mechanism

    @property
    def x(self) -> Inputs:
        return self.first.x.replace(q=self.q, k=self.k, layer=self.layer)


AnyCall = LayerCall | LikeCall


def absorb_in_order(calls: Iterable[AnyCall]) -> None:
    """Take in calls as they come; a layer's second one after its first. What came before a failure is taken in."""
    waiting: list[AnyCall] = []
    layers: set[int] = set()
    try:
        for call in calls:
            if id(call.watching) in layers:
                absorb(waiting)
                waiting, layers = [], set()
            waiting.append(call)
            layers.add(id(call.watching))
    finally:
        absorb(waiting)


@torch.no_grad()
def absorb(calls: Sequence[AnyCall]) -> None:
    """Take in calls of different layers. Those of one step whose heads differ in q and k alone are one walk."""
    ready_of: dict[int, Ready | None] = {}
    steps: dict[int, list[tuple[AnyCall, Ready]]] = {}
    for call in calls:
        first = id(call.first)
        if first not in ready_of:
            ready_of[first] = _ready(call.first)
        ready = ready_of[first]
        if ready is None:
            call.watching.absorb(call.mechanism, call.x, call.at.view, call.at.rows, call.at.first_key, None)
        else:
            steps.setdefault(id(ready.step.watch), []).append((call, ready))
    for step in steps.values():
        _walk(step)


def _ready(call: LayerCall) -> Ready | None:
    ready = call.watching.ready(call.mechanism, call.x, call.at)
    return ready if ready is not None and one_for_all_heads(ready.plan) else None


def _walk(step: list[tuple[AnyCall, Ready]]) -> None:
    first = step[0][1]
    q, k = torch.cat([call.q for call, _ in step], 1), torch.cat([call.k for call, _ in step], 1)
    result = first.backend.walk(first.plan.over(q, k, None), first.step.watch, False)
    heads = first.plan.q.shape[1]
    for number, (call, ready) in enumerate(step):
        call.watching.take(call.q, call.k, call.at, ready, _of_heads(result, number * heads, heads))


def one_for_all_heads(plan: core.Plan) -> bool:
    """Whether heads of a plan differ in nothing but queries and keys."""
    shared = plan.ranges.start.shape[1] == plan.ranges.stop.shape[1] == 1 and plan.softmax.sink is None
    return shared and all(_shared(term) for term in plan.terms)


def _shared(term: core.Term) -> bool:
    match term:
        case core.Dot(scale=scale):
            return not isinstance(scale, Tensor) or scale.numel() == 1
        case core.KeyBias(bias=bias) | core.Table(bias=bias):
            return bias.shape[1] == 1
        case core.Softcap():
            return True
    return False


def _of_heads(result: Output, first: int, count: int) -> Output:
    """Some heads of a walk's results, as views."""
    assert result.row_max is not None and result.row_log_sum is not None
    state = (result.row_max.narrow(1, first, count), result.row_log_sum.narrow(1, first, count))
    return Output(None, *state, Heads(result.statistics, first, count))


class Heads(Sequence[Result]):
    """Results of a walk, each cut to `number` heads from `first` on when it is read."""

    def __init__(self, of: Sequence[Result], first: int, number: int) -> None:
        self.of, self.first, self.number = of, first, number

    @overload
    def __getitem__(self, index: int) -> Result: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Result, ...]: ...

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self.of))))
        result = self.of[index]
        if isinstance(result, tuple):
            return tuple(part.narrow(1, self.first, self.number) for part in result)
        return result.narrow(1, self.first, self.number)

    def __len__(self) -> int:
        return len(self.of)
