"""Small calls wait until their forward is over, and are then taken in together.

Between a model's own layers this code runs with cold caches, which costs a small call more than its walk does. What a
model could change meanwhile is copied or noted when the call is made.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import Tensor

from regard.evaluate import weight_kind
from regard.hf.aside import aside
from regard.hf.calls import HONOURED, Call, read
from regard.hf.seam import AttentionCall
from regard.hf.sequences import Step, inputs_of, is_forward, within_seen
from regard.seeing import together
from regard.seeing.step import Where

if TYPE_CHECKING:
    from regard.hf.watcher import Watcher

SMALL = 1 << 16  # numbers of queries and keys, 256 KB in float32


@dataclass(frozen=True, eq=False)
class Waiting:
    """A call with queries and keys of its own; mark: when its mask meant what it did, as `Questions.mark` says."""

    made: AttentionCall
    query: Tensor
    key: Tensor
    mark: int

    def means_what(self, other: Waiting) -> bool:
        """Whether the two are one call but for their tensors."""
        a, b = self.made, other.made
        if type(a.module) is not type(b.module) or a.mask is not b.mask or self.mark != other.mark:
            return False
        if getattr(a.module, "is_causal", True) != getattr(b.module, "is_causal", True):
            return False
        if (a.scaling, a.is_eager, a.keywords.keys()) != (b.scaling, b.is_eager, b.keywords.keys()):
            return False
        if any(
            x is not y and (isinstance(x, Tensor) or x != y) for x, y in zip(a.keywords.values(), b.keywords.values())
        ):
            return False
        shapes = (self.query.shape, self.key.shape, a.value.shape, self.query.dtype, self.key.dtype)
        return shapes == (other.query.shape, other.key.shape, b.value.shape, other.query.dtype, other.key.dtype)


@dataclass(frozen=True, eq=False)
class Read:
    """A call that waited, read: its data, where it lies, and what its layer's statistics take in."""

    waited: Waiting
    data: Call
    step: Step
    call: together.LayerCall


class WaitingCalls:
    """The calls of one Watcher's model that wait."""

    def __init__(self, watcher: Watcher) -> None:
        self.watcher = watcher
        self._calls: list[Waiting] = []

    def add(self, call: AttentionCall) -> bool:
        """Let a call wait, if it can: a small one, with no other tensors that the model may change meanwhile."""
        query, key = call.query, call.key
        if query.numel() + key.numel() > SMALL or not is_forward():
            return False
        mark = call.questions.mark(call.mask)
        if mark is None or any(isinstance(x, Tensor) and name in HONOURED for name, x in call.keywords.items()):
            return False
        self._calls.append(Waiting(call, _copy(query), _copy(key), mark))
        return True

    def take(self) -> None:
        """Absorb the calls that wait, in the order in which they were made."""
        if self._calls:
            calls, self._calls = self._calls, []
            with aside(calls[0].query):
                read_: list[Read] = []
                together.absorb_in_order(self._read(call, read_) for call in calls)

    def _read(self, waited: Waiting, before: list[Read]) -> together.AnyCall:
        """What the layer's statistics take in; `before` are the first calls of each step, of which it may be one."""
        like = next((one for one in before if waited.means_what(one.waited)), None)
        made = waited.made
        layer = self.watcher.ids[id(made.module)]
        self.watcher.called.add(id(made.module))
        if like is None:
            data = within_seen(self._call(waited, layer.name), layer)
        else:
            data = like.data.over(waited.query, waited.key, made.value)
        step = self.watcher.lay(made.module, layer, data)
        group = step.state.groups[0]
        heads = data.of_heads(group.heads)
        if like is not None and step.lies_as(like.step):
            self.watcher.note(step, data, like.call.at.view)
            return together.LikeCall(group.watching, heads.q, heads.k, layer.index, like.call)
        view = step.view(weight_kind(heads.mechanism), len(group.heads))
        at = Where(view, step.rows, data.first_key)
        taken = together.LayerCall(group.watching, heads.mechanism, inputs_of(heads, step, None), at)
        before.append(Read(waited, data, step, taken))
        self.watcher.note(step, data, view)
        return taken

    def _call(self, waited: Waiting, name: str) -> Call:
        """The call as data, with what its mask meant when it was made."""
        made, query, key = waited.made, waited.query, waited.key
        window = made.keywords.get("sliding_window")
        asked = made.questions.of(made.mask, query.shape[2], key.shape[2], window, waited.mark)
        return read(replace(made, query=query, key=key), name, asked)


def _copy(tensor: Tensor) -> Tensor:
    return (tensor.detach() if tensor.requires_grad else tensor).clone()
