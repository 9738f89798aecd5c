"""Cost: the pairs that an attention reads, and the bytes that it has to keep for later tokens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from regard.core import ranges
from regard.evaluate import prepared
from regard.hf.calls import Call
from regard.hf.plan import Plan, Rule
from regard.inputs import Inputs
from regard.lower import ranges_of, visible
from regard.mechanism import Mechanism
from regard.protocol import Attention
from regard.recurrent.recurrence import Recurrence, ready
from regard.swap.records import Cost
from regard.swap.running import running
from regard.swap.texts import batch_like

AHEAD = 256  # later queries that are asked which of today's keys they will see
OWN = Plan((Rule("own", None),))


@dataclass(eq=False)
class Meter:
    """Adds up what is computed in one forward of one sequence.

    kept: bytes that a key-value head keeps, by the call of its layer and its number; a key that any of its query heads
    will see is kept once.
    """

    pairs: int = 0
    has_state: bool = False
    tokens: int = 1
    kept: dict[tuple[int, int], int] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)  # alive, so that their ids are their own

    def note(self, call: Call, attention: Attention, x: Inputs, heads: list[int]) -> None:
        """Count one computation: the heads of a part of a layer."""
        self.tokens = x.q.shape[2]
        self.calls.append(call)
        per_head = call.q.shape[1] // call.k.shape[1]
        size = self._kept_bytes(attention, x)
        if isinstance(attention, Recurrence):
            self.has_state = True
        else:
            counts = _visible_pairs(attention, x)
            self.pairs += int(counts.sum()) * (len(heads) // counts.shape[1])
        for group in {head // per_head for head in heads}:
            key = (id(call), group)
            self.kept[key] = max(self.kept.get(key, 0), size)

    def _kept_bytes(self, attention: Attention, x: Inputs) -> int:
        """Bytes that one key-value head keeps for later tokens."""
        assert x.v is not None
        if isinstance(attention, Recurrence):
            return _state_bytes(attention, x) // x.k.shape[1]
        count = _kept_keys(attention, x) if isinstance(attention, Mechanism) else x.k.shape[2]
        return count * (x.k.shape[3] * x.k.element_size() + x.v.shape[3] * x.v.element_size())


def _visible_pairs(attention: Attention, x: Inputs) -> Tensor:
    """Visible keys per row, [1, heads or 1, queries]; of a composite, what the model's mask shows."""
    if isinstance(attention, Mechanism):
        return visible(attention, prepared(attention, x)).counts()
    return (ranges.full(x.q.shape[2], x.k.shape[2]) if x.allowed is None else x.allowed).counts()


@torch.no_grad()
def costs(model: nn.Module, plans: list[Plan], ids: Tensor) -> list[Cost]:
    """The cost of each plan for one sequence of token ids [T]; the first plan is what shares are taken of."""
    meters = []
    for plan in plans:
        meter = Meter()
        with running(model, plan, backend="auto", note=meter.note):
            model(input_ids=batch_like(model, ids), use_cache=False)
        meters.append(meter)
    whole = meters[0].pairs
    found = []
    for meter in meters:
        pairs = None if meter.has_state else meter.pairs
        share = None if pairs is None or not whole else pairs / whole
        found.append(Cost(pairs, share, sum(meter.kept.values()) / meter.tokens))
    return found


def _kept_keys(mechanism: Mechanism, x: Inputs) -> int:
    """How many of the keys so far some later query may see."""
    length = x.k.shape[2]
    begin = int(x.key_positions[0, -1])
    later = torch.arange(begin, begin + AHEAD, device=x.q.device)[None]
    asked = Inputs(
        q=x.q.new_empty(1, x.q.shape[1], AHEAD, 0),
        k=x.k.new_empty(1, x.k.shape[1], length, 0),
        v=None,
        query_positions=later,
        key_positions=x.key_positions[:1],
    )
    try:
        seen = ranges_of(mechanism.mask, asked)
    except ranges.TooManyRuns:
        return length
    if x.allowed is not None and x.allowed.num_queries:
        last = x.allowed.rows(x.allowed.num_queries - 1, x.allowed.num_queries)
        hull = ranges.Ranges(last.start.expand(-1, -1, AHEAD, -1), last.stop.expand(-1, -1, AHEAD, -1), length)
        seen = seen & hull
    return int(seen.dense().any(2).sum(-1).max())


def _state_bytes(recurrence: Recurrence, x: Inputs) -> int:
    state: Any = recurrence.start(ready(recurrence, x))
    tensors = state if isinstance(state, tuple) else (state,)
    return sum(t.numel() * t.element_size() for t in tensors if isinstance(t, Tensor))
