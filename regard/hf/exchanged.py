"""What a call computes in place of the model's own attention: the heads that belong together, each with its mechanism,
and what edits hide from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from regard.core import ranges
from regard.core.ranges import Ranges
from regard.hf.calls import Call, swapped
from regard.hf.errors import Unsupported
from regard.hf.layers import LayerId
from regard.hf.plan import Plan
from regard.inputs import Inputs
from regard.mechanism import Mechanism
from regard.protocol import Attention


class Edit(Protocol):
    """A change to a model's attention that is asked about (regard.swap.edits has them)."""

    @property
    def named_layers(self) -> Sequence[int]:
        """The layers that it names by number."""

    def hides(self, layer: LayerId, call: Call, rows: slice) -> Ranges | None:
        """What the queries of a call, the tokens `rows`, may see of the call's keys besides; None: all."""

    def replaces(self, layer: LayerId, heads: Sequence[int]) -> frozenset[int]:
        """The heads whose pattern this edit exchanges."""

    def pattern(self, call: Call, heads: Sequence[int], rows: slice) -> Mechanism:
        """What these heads compute; `call` holds them alone."""


@dataclass(frozen=True, eq=False)
class Part:
    """Heads of a layer that attend by one mechanism: that of an edit, else `attention`, else the model's own."""

    heads: list[int]
    attention: Attention | None = None
    edit: Edit | None = None

    @property
    def is_own(self) -> bool:
        """Whether the heads compute what the model says."""
        return self.attention is None and self.edit is None

    @property
    def other(self) -> Attention | None:
        """An attention that is no Mechanism: a recurrence or a composite."""
        return None if self.edit is not None or isinstance(self.attention, Mechanism) else self.attention


def parts_of(layer: LayerId, num_heads: int, plan: Plan, edits: Sequence[Edit]) -> list[Part]:
    """The heads of a layer by what they compute, in the order of their first head.

    Raises Unsupported where a head is named that the layer does not have.
    """
    heads, last = range(num_heads), plan.last_head(layer.index)
    if last >= num_heads:
        raise Unsupported(f"layer {layer.name} has heads 0 to {num_heads - 1}; head {last} was to be swapped")
    by_edit = {head: edit for edit in edits for head in edit.replaces(layer, heads)}
    groups: dict[tuple[int, int], Part] = {}
    for head in heads:
        edit = by_edit.get(head)
        attention = None if edit is not None else plan.of_head(layer.index, head)
        groups.setdefault((id(edit), id(attention)), Part([], attention, edit)).heads.append(head)
    return list(groups.values())


def narrowed(layer: LayerId, call: Call, rows: slice, edits: Sequence[Edit]) -> Call:
    """The call without what edits hide; the very call where they hide nothing that it could see."""
    allowed = call.allowed
    for edit in edits:
        shown = edit.hides(layer, call, rows)
        if shown is not None:
            allowed = _both(allowed, shown)
    if allowed is call.allowed or torch.equal(*torch.broadcast_tensors(allowed.counts(), call.allowed.counts())):
        return call
    return replace(call, allowed=allowed)


def _both(seen: Ranges, shown: Ranges) -> Ranges:
    """What both show; where that falls into more intervals than tables are joined by, cell by cell."""
    try:
        return seen & shown
    except ranges.TooManyRuns:
        return ranges.from_dense(seen.dense() & shown.dense(), max_runs=None)


def computes(part: Part, call: Call, heads: list[int], rows: slice) -> Call:
    """The call of some heads of a part, with what they compute as its mechanism. call: that of all heads."""
    mine = call.of_heads(heads)
    if part.edit is not None:
        return replace(mine, mechanism=part.edit.pattern(mine, heads, rows))
    if isinstance(part.attention, Mechanism):
        return replace(mine, mechanism=swapped(mine.mechanism, part.attention))
    return mine


def recurrent_inputs(x: Inputs, name: str, where: str) -> Inputs:
    """The inputs of a recurrence: as many queries as keys, and valid keys instead of a mask.

    The newest queries come last; earlier ones are zeros, whose outputs nobody reads. Raises Unsupported where the mask
    is anything but causal with padding: a state cannot leave out what it has taken in.
    """
    num_queries, num_keys = x.q.shape[2], x.k.shape[2]
    valid = x.key_valid
    if x.allowed is not None:
        allowed = x.allowed
        seen = allowed.rows(num_queries - 1, num_queries).dense()[:, 0, 0].expand(x.q.shape[0], -1)
        upto = seen.long().cumsum(1)[:, num_keys - num_queries :]
        if allowed.start.shape[1] != 1 or not torch.equal(*torch.broadcast_tensors(allowed.counts()[:, 0], upto)):
            raise Unsupported(
                f"{name} sees the whole past, and the mask of {where} is not plainly causal (a window, a chunk or both "
                "directions); swap it into causal layers, or choose a mechanism with a mask"
            )
        valid = seen if valid is None else valid & seen
    before = num_keys - num_queries
    q = torch.cat([x.q.new_zeros(*x.q.shape[:2], before, x.q.shape[3]), x.q], 2) if before else x.q
    return x.replace(q=q, query_positions=x.key_positions, allowed=None, key_valid=valid)


def joined(outputs: Sequence[tuple[list[int], Tensor]]) -> Tensor:
    """The output of a layer whose parts were computed apart, heads in order."""
    order = [head for heads, _ in outputs for head in heads]
    if order == sorted(order) and len(outputs) == 1:
        return outputs[0][1]
    return torch.cat([out for _, out in outputs], 1)[:, sorted(range(len(order)), key=order.__getitem__)]
