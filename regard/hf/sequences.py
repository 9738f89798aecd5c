"""One layer along one sequence: its statistics, how far it was seen, and whether a call belongs to it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from regard.core import ranges
from regard.hf.axes import TokenAxis
from regard.hf.calls import Call
from regard.hf.errors import Unsupported
from regard.hf.layers import LayerId
from regard.inputs import Inputs
from regard.mechanism import WeightKind
from regard.seeing.watching import Watching
from regard.statistic import View


def continues_unseen(layer: LayerId, first: int, seen: int) -> Unsupported:
    """The error for rows of which the ones before were not seen."""
    return Unsupported(
        f"layer {layer.name} continues at token {first}, but {seen} were seen; attach before the first forward of a "
        "sequence, and do not crop its cache (as assisted decoding does)"
    )


@dataclass(eq=False)
class HeadGroup:
    """Watched heads of a layer that attend by one mechanism: all of them, unless some were swapped."""

    heads: list[int]
    watching: Watching


@dataclass(eq=False)
class LayerState:
    """A layer, or one of the times that a forward calls it, in the sequence that is running.

    rows_seen: the tokens whose rows came by. view: None until one was absorbed. last_key: the newest key [B,G,D], to
    know the cache again by. numbers: the sum of all queries and keys so far, which is finite only if they are.
    """

    layer: LayerId
    call_number: int
    groups: list[HeadGroup]
    rows_seen: int = 0
    last_key: Tensor | None = None
    view: View | None = None
    query_axis: TokenAxis | None = None
    key_axis: TokenAxis | None = None
    numbers: Tensor | None = None

    def note_numbers(self, *tensors: Tensor) -> None:
        """Look at tensors for NaN and infinities; nobody waits for the answer."""
        for tensor in tensors:
            total = tensor.sum(dtype=torch.float32)
            self.numbers = total if self.numbers is None else self.numbers + total

    def problems(self) -> list[str]:
        """What is wrong with the numbers of this layer, in words."""
        if self.numbers is None or math.isfinite(float(self.numbers)):
            return []
        return [f"layer {self.layer.name} has NaN or infinite queries or keys; check the model's weights"]

    @property
    def watching(self) -> Watching:
        """The statistics of a layer whose heads attend by one mechanism."""
        assert len(self.groups) == 1
        return self.groups[0].watching

    @property
    def heads(self) -> list[int]:
        return [head for group in self.groups for head in group.heads]

    def first_row(self, call: Call) -> int:
        """The token that the call's first query is: as its mask says, else the next one where the keys fit."""
        if call.first_query is not None:
            return call.first_query
        return self.rows_seen if call.k.shape[2] == self.rows_seen + call.q.shape[2] else 0

    def check_continues(self, call: Call, rows: slice) -> None:
        """Raise Unsupported where the call's rows do not follow the ones before."""
        if rows.start != self.rows_seen:
            raise continues_unseen(self.layer, rows.start, self.rows_seen)
        if self.view is not None and self.view.batch != call.q.shape[0]:
            raise Unsupported(f"the batch changed from {self.view.batch} to {call.q.shape[0]} within one sequence")
        if self.last_key is not None and rows.start > call.first_key:
            before = call.k[:, :, rows.start - call.first_key - 1]
            if torch.equal(before, self.last_key):
                return
            if not torch.allclose(before, self.last_key, rtol=0.05, atol=1e-3 * float(before.abs().max())):
                raise Unsupported(
                    f"the cache of layer {self.layer.name} was reordered or changed between tokens (beam search does "
                    "this), so its rows no longer belong together; generate without beams, or watch one forward over "
                    "the text that the beams wrote"
                )


@dataclass(frozen=True, eq=False)
class Step:
    """One call of a module as it lies in its sequence: the axis and rows of its queries, the axis of its keys."""

    module: nn.Module
    state: LayerState
    query: TokenAxis
    rows: slice
    key: TokenAxis

    def lies_as(self, other: Step) -> bool:
        """Whether both are of the same rows and keys, and the same heads of them are watched."""
        same = self.query is other.query and self.key is other.key and self.rows == other.rows
        return same and self.state.groups[0].heads == other.state.groups[0].heads

    def view(self, kind: WeightKind, heads: int) -> View:
        """What a statistic may know of the call."""
        return View(
            batch=self.query.batch,
            heads=heads,
            query=self.query.tokens,
            key=self.key.tokens,
            same_axis=(self.query.all or self.query) is self.key,
            kind=kind,
        )


def inputs_of(call: Call, step: Step, v: Tensor | None) -> Inputs:
    """The call as Inputs: its queries and keys with the positions they have on their axes."""
    at = slice(call.first_key, call.first_key + call.k.shape[2])
    return Inputs(
        q=call.q,
        k=call.k,
        v=v,
        query_positions=step.query.tokens.positions[:, step.rows].to(call.q.device),
        key_positions=step.key.tokens.positions[:, at].to(call.q.device),
        key_valid=call.valid,
        allowed=call.allowed,
        layer=step.state.layer.index,
    )


def within_seen(call: Call, layer: LayerId) -> Call:
    """Without the slots of a static cache that no token has filled yet; the mask never shows them."""
    if call.first_query is None or layer.kind == "cross":
        return call
    seen = call.first_query + call.q.shape[2] - call.first_key
    if not 0 < seen < call.k.shape[2] or call.allowed.hull()[1] > seen:
        return call
    allowed = ranges.Ranges(call.allowed.start.clamp(max=seen), call.allowed.stop.clamp(max=seen), seen)
    return replace(call, k=call.k[:, :, :seen], v=call.v[:, :, :seen], allowed=allowed)


def is_forward() -> bool:
    """Whether a forward runs: checkpointing calls a layer again in the backward pass."""
    return torch._C._current_graph_task_id() == -1
