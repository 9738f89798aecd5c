"""Caches of a mechanism's own size: a window keeps its window and its sinks, a state keeps a state."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin

from regard.hf.calls import Call
from regard.hf.exchanged import recurrent_inputs
from regard.hf.plan import Plan
from regard.inputs import Inputs
from regard.mechanism import Mask, Mechanism
from regard.parts.bands import Band, FirstKeys
from regard.parts.joined import Or
from regard.parts.normalisers import Softmax
from regard.parts.scores import Dot
from regard.recurrent.recurrence import Recurrence, State
from regard.swap.cache.layer import Place, PolicyLayer
from regard.swap.policies.sinks import Sinks


class StateLayer(CacheLayerMixin):
    """A layer whose cache is a recurrence's state: it takes as much after a million tokens as after one."""

    is_sliding = False
    is_croppable = False

    def __init__(self, recurrence: Recurrence) -> None:
        super().__init__()
        self.recurrence = recurrence
        self.state: State | None = None
        self.fresh: tuple[Tensor, Tensor] | None = None
        self.seen = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        self.is_initialized = True
        self.fresh = (key_states, value_states)
        return key_states, value_states

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.seen + query_length, 0

    def get_seq_length(self) -> int:
        return self.seen

    def get_max_length(self) -> int:
        return -1

    def reset(self) -> None:
        self.state = self.fresh = None
        self.seen = 0

    @property
    def nbytes(self) -> int:
        """Bytes of the state."""
        tensors = self.state if isinstance(self.state, tuple) else (self.state,)
        return sum(t.numel() * t.element_size() for t in tensors if isinstance(t, Tensor))

    def read_prompt(self, call: Call, where: str) -> Tensor:
        """Take a prompt in; its output [B,H,Tq,Dv]."""
        x = recurrent_inputs(_inputs(call.q, call.k, call.v, call), self.recurrence.name, where)
        return self._recurred(x)

    def attend(self, q: Tensor) -> Tensor:
        """Take new tokens in; their output [B,H,Tq,Dv]."""
        assert self.fresh is not None
        return self._recurred(_inputs(q, *self.fresh, None))

    def _recurred(self, x: Inputs) -> Tensor:
        self.fresh = None
        self.seen += x.k.shape[2]
        out, self.state = self.recurrence.recur(x, self.state)
        return out.to(x.q.dtype)


def _inputs(q: Tensor, k: Tensor, v: Tensor, call: Call | None) -> Inputs:
    at = torch.arange(k.shape[2], device=q.device).expand(len(q), -1)
    return Inputs(q, k, v, at, at, None if call is None else call.valid, allowed=None if call is None else call.allowed)


def layer_for(plan: Plan, number: int, heads: int, plain: Any, place: Place) -> Any:
    """The cache layer of a plan's mechanism in one layer; `plain` where all keys have to stay."""
    found = {id(a): a for a in (plan.of_head(number, head) for head in range(heads))}
    attention = next(iter(found.values()))
    if len(found) > 1 or attention is None:
        return plain
    if isinstance(attention, Recurrence):
        return StateLayer(attention)
    size = _window(attention)
    # the row that is written sees itself besides
    kept = 0 if size is None else sum(size) - 1
    return PolicyLayer(Sinks(kept, sinks=size[1]), place, None) if size is not None and kept > 1 else plain


def _window(attention: Any) -> tuple[int, int] | None:
    """(tokens of a window, sinks before it) of plain softmax attention with that mask; None for anything else."""
    if not isinstance(attention, Mechanism) or attention.prepare or attention.adjust or len(attention.score) > 1:
        return None
    softmax = attention.normaliser
    is_plain = isinstance(attention.score[0], Dot) and isinstance(softmax, Softmax) and softmax.sink is None
    return _near(attention.mask) if is_plain else None


def _near(mask: Mask) -> tuple[int, int] | None:
    if isinstance(mask, Band) and mask.before and mask.after == 0:
        return mask.before + 1, 0
    if isinstance(mask, Or):
        for near, first in ((mask.left, mask.right), (mask.right, mask.left)):
            window = _near(near)
            if window is not None and window[1] == 0 and isinstance(first, FirstKeys) and first.causal:
                return window[0], first.count
    return None
