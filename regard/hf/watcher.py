"""Watching is a handler: it reads the calls of an attached model, feeds each layer's statistics, changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from regard.core import ranges
from regard.evaluate import weight_kind
from regard.hf.aside import aside
from regard.hf.axes import Axes, TokenAxis
from regard.hf.calls import Call, read
from regard.hf.engine import observers
from regard.hf.errors import Unsupported
from regard.hf.families import SHARED_KEYS
from regard.hf.filling import PUT_OFF, filling, filling_now
from regard.hf.layers import LayerId, attention_modules, layer_ids, output_projection, value_norms
from regard.hf.own_code.follow import OwnCode
from regard.hf.seam import AttentionCall, Handler, ShownCall
from regard.hf.sequences import HeadGroup, LayerState, Step, continues_unseen, inputs_of, is_forward, within_seen
from regard.hf.waiting import WaitingCalls
from regard.mechanism import Mechanism, WeightKind
from regard.once import once
from regard.parts.masks import Full
from regard.parts.normalisers import Softmax
from regard.seeing.kept import Kept
from regard.seeing.trace import About, Trace
from regard.seeing.watching import Watching
from regard.statistic import Statistic, View

NO_MECHANISM = Mechanism("own code", "the model's own", (), Full(), Softmax())


class Watcher(Handler):
    """What is watched of one attached model. `trace` is filled when it is read, within the block or after it.

    layers, heads: indices to watch, None for all. backend: whose walks reduce the weights; "model" leaves the choice.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        statistics: tuple[Statistic, ...],
        *,
        layers: frozenset[int] | None = None,
        heads: list[int] | None = None,
        backend: str = "model",
        tokenizer: Any = None,
        keep: Literal["qk"] | None = None,
    ) -> None:
        self.model = model
        self.statistics = statistics
        self.layers = layers
        self.heads = heads
        self.keep = keep
        self.backend = backend
        self.axes = Axes(model, tokenizer)
        self.ids = layer_ids(model)
        self.own_code = OwnCode(self)
        self.waiting = WaitingCalls(self)
        self.states: dict[tuple[int, int], LayerState] = {}  # by module, and by which of its calls in a forward
        self.called: set[int] = set()
        self.problems: list[str] = []
        self.forwards = 0
        self.describe_output: Callable[[], dict[str, Any]] = dict  # what whoever makes the output says of it
        self._calls: dict[int, int] = {}  # by module, in this forward
        self._may_wait = layers is None and all(s.of == "weights" for s in statistics) and bool(statistics or keep)
        self._reads_values = any(statistic.of == "norm" for statistic in statistics)
        self._rows: dict[str, tuple[TokenAxis, slice]] = {}  # by stack: its latest self-attention's rows
        self.names = [(name, id(module)) for name, module in attention_modules(model)]
        self.trace = Trace(Path(model.config.name_or_path or "").name or type(model).__name__)
        self.trace.statistics = {s.label: About.of(s) for s in statistics}
        self.trace.put_off(PUT_OFF, self._now)

    def before_forward(self, model: PreTrainedModel, is_outermost: bool, args: Any, kwargs: Any) -> None:
        self.waiting.take()
        if is_outermost:
            self.forwards += 1
            self.trace.put_off(PUT_OFF, self._now)
            self._calls.clear()
            self._rows.clear()
        self.axes.note_inputs(model, args, kwargs)
        self.own_code.note_masks(model, args, kwargs)

    def after_forward(self) -> None:
        self.waiting.take()

    def attend(self, call: AttentionCall) -> Tensor | None:
        """Absorb one call, now or after the forward; the model's own function makes its output."""
        if self._may_wait and self.waiting.add(call):
            return None
        self.called.add(id(call.module))
        layer = self.ids[id(call.module)]
        if self.watches(layer):
            with aside(call.query):
                data = within_seen(read(call, layer.name), layer)
                step = self.follow(call.module, layer, data)
                self.absorb(step, step.state.groups[0], data, output=False)
        return None

    def shown(self, call: ShownCall) -> None:
        """Absorb what a module that computed its attention by itself shows."""
        self.waiting.take()
        self.called.add(id(call.module))
        layer = self.ids[id(call.module)]
        if self.watches(layer):
            with aside(call.query):
                allowed = ranges.full(call.query.shape[2], call.key.shape[2], call.query.device)
                parts = (call.query, call.key, call.value, call.mechanism, allowed, call.first, 0, None, call.valid)
                data = Call(*parts)
                if layer.kind == "cross" and layer.stack not in self._rows:
                    self._own_rows(call.module, layer, data)
                step = self.follow(call.module, layer, data)
                self.absorb(step, step.state.groups[0], data, output=False)

    def _own_rows(self, module: nn.Module, layer: LayerId, call: Call) -> None:
        """Rows of a stack without self-attention, which the call itself counts: on a new axis or further on."""
        first = call.first_query or 0
        before = self.states.get((id(module), 0))
        if first == 0:
            if before is not None and before.rows_seen:
                self.set_aside()
            axis = self.axes.start(module, layer, call, self.forwards)
        elif before is None or before.query_axis is None:
            raise continues_unseen(layer, first, 0)
        else:
            axis = before.query_axis
            self.axes.extend(axis, module, layer, call, first, self.forwards)
        self._rows[layer.stack] = (axis, slice(first, first + call.q.shape[2]))

    def watches(self, layer: LayerId) -> bool:
        """Whether a call of this layer, now, is to be absorbed."""
        return (
            bool(self.statistics or self.keep) and (self.layers is None or layer.index in self.layers) and is_forward()
        )

    def _now(self) -> dict[str, Any]:
        self.waiting.take()
        return filling_now(self)

    # ---- one call -----------------------------------------------------------------------------------------------

    def follow(self, module: nn.Module, layer: LayerId, call: Call, parts: Sequence[list[int]] = ()) -> Step:
        """Where a call lies in its sequence. Raises Unsupported where it does not continue what came before.

        parts: the heads that attend by one mechanism, where there are several; each is a group of its own.
        """
        self.waiting.take()
        return self.lay(module, layer, call, parts)

    def lay(self, module: nn.Module, layer: LayerId, call: Call, parts: Sequence[list[int]] = ()) -> Step:
        """`follow`, for calls before which no others wait."""
        state = self._state(module, layer, call, parts)
        query, rows, key = (
            self._cross_axes(layer, call) if layer.kind == "cross" else self._self_axes(module, state, call)
        )
        state.check_continues(call, rows)
        state.rows_seen, state.query_axis, state.key_axis = rows.stop, query, key
        return Step(module, state, query, rows, key)

    def absorb(self, step: Step, group: HeadGroup, call: Call, output: bool, mine: Call | None = None) -> Tensor | None:
        """Feed one call to the statistics of its heads; with output=True also what a fused backend made of it.

        mine: the call of the group's heads, where they compute something else than the model says.
        """
        heads = call.of_heads(group.heads) if mine is None else mine
        x = inputs_of(heads, step, heads.v if output else None)
        view = step.view(weight_kind(heads.mechanism), len(group.heads))
        scale = self._value_norms(step, group, call)
        out = group.watching.absorb(heads.mechanism, x, view, step.rows, call.first_key, scale)
        self.note(step, call, view)
        return out

    def note(self, step: Step, call: Call, view: View) -> None:
        """What the next call of the layer is held to."""
        state = step.state
        self._note_problems(state, call, view, step.rows)
        state.view = view
        state.last_key = call.k[:, :, -1].clone() if state.layer.kind == "self" else None

    def follow_weights(
        self, module: nn.Module, shape: tuple[int, int, int, int], kind: WeightKind, device: torch.device
    ) -> tuple[Step, View] | None:
        """Where weights [B,H,Tq,Tk] that a model made in its own code lie, so that they can be absorbed.

        The hand-over of models off the interface: step.state.watching takes the weights of step.state.heads, the rows
        step.rows of step.query and all keys of step.key. None: this layer is not watched.
        """
        layer = self.ids[id(module)]
        self.called.add(id(module))
        if not self.watches(layer):
            return None
        batch, heads, num_queries, num_keys = shape
        q = torch.empty(batch, heads, num_queries, 0, device=device)
        k = torch.empty(batch, heads, num_keys, 0, device=device)
        allowed = ranges.full(num_queries, num_keys, device)
        step = self.follow(module, layer, Call(q, k, k, NO_MECHANISM, allowed, None, 0, None))
        step.state.view = step.view(kind, len(step.state.heads))
        return step, step.state.view

    def _state(self, module: nn.Module, layer: LayerId, call: Call, parts: Sequence[list[int]]) -> LayerState:
        """The state that a call continues, or a new one; where the layer starts over, all that ran is set aside."""
        number = self._calls.get(id(module), 0)
        self._calls[id(module)] = number + 1
        first = self.states.get((id(module), 0))
        if number and first is not None and call.first_query and first.rows_seen == call.first_query:
            return first  # a forward that passes its tokens through the layers slice by slice
        state = self.states.get((id(module), number))
        if state is not None and state.rows_seen and self._starts_over(call, state):
            self.set_aside()
            state = None
        if state is None:
            state = LayerState(layer, number, self._groups(layer, call, parts))
            self.states[(id(module), number)] = state
        return state

    def _groups(self, layer: LayerId, call: Call, parts: Sequence[list[int]]) -> list[HeadGroup]:
        num_heads = call.q.shape[1]
        heads = list(range(num_heads)) if self.heads is None else self.heads
        outside = [head for head in heads if not 0 <= head < num_heads]
        if outside:
            raise Unsupported(f"layer {layer.name} has heads 0 to {num_heads - 1}; head {outside[0]} was asked for")
        groups = [[head for head in heads if head in part] for part in parts] if len(parts) > 1 else [heads]
        by = observers(self.backend, call.q.device)
        return [HeadGroup(g, Watching(self.statistics, by, Kept(by) if self.keep else None)) for g in groups if g]

    def _starts_over(self, call: Call, state: LayerState) -> bool:
        if state.layer.kind == "cross":
            rows = self._rows.get(state.layer.stack)
            return rows is not None and rows[1].start == 0
        return call.first_query == 0 or (call.first_query is None and call.q.shape[2] == call.k.shape[2])

    def set_aside(self) -> None:
        """End the sequence that is running: its trace goes to `trace.earlier`, and what follows is a new one."""
        done = Trace(self.trace.model, statistics=self.trace.statistics)
        done.put_off(PUT_OFF, filling(self))
        self.trace.earlier.append(done)
        self.states = {}
        self.axes.reset()

    # ---- its axes -----------------------------------------------------------------------------------------------

    def _self_axes(self, module: nn.Module, state: LayerState, call: Call) -> tuple[TokenAxis, slice, TokenAxis]:
        first = state.first_row(call)
        axis = state.query_axis
        latest = self._rows.get(state.layer.stack)
        shares_keys = getattr(module, SHARED_KEYS, False)
        if shares_keys and axis is None and latest is not None and _ends(call, latest[1]):
            first = latest[1].stop - call.q.shape[2]
            axis = self.axes.last_rows(latest[0], first, self.forwards)
            state.rows_seen = first
        elif first == 0:
            axis = self.axes.start(module, state.layer, call, self.forwards)
        elif axis is None:
            raise continues_unseen(state.layer, first, 0)
        else:
            self.axes.extend(axis, module, state.layer, call, first, self.forwards)
        rows = slice(first, first + call.q.shape[2])
        if axis.all is None:
            self._rows[state.layer.stack] = (axis, rows)
        if call.first_key + call.k.shape[2] == rows.stop:
            return axis, rows, axis.all or axis
        return axis, rows, self.axes.context(state.layer, call.k, None, self.forwards)

    def _cross_axes(self, layer: LayerId, call: Call) -> tuple[TokenAxis, slice, TokenAxis]:
        flags = call.valid if call.mask is None else call.mask.padding()
        latest = self._rows.get(layer.stack)
        count = call.q.shape[2]
        if latest is None or latest[1].stop - latest[1].start != count or latest[0].batch != call.q.shape[0]:
            latest = (self.axes.apart(layer, call, self.forwards), slice(0, count))
        keys = self.axes.context(layer, call.k, None if flags is None else flags[:, : call.k.shape[2]], self.forwards)
        return *latest, keys

    # ---- what statistics need besides -----------------------------------------------------------------------------

    def _value_norms(self, step: Step, group: HeadGroup, call: Call) -> Tensor | None:
        if not self._reads_values:
            return None
        num_heads, width = call.q.shape[1], call.v.shape[3]
        projection = output_projection(step.module, self.model, step.state.layer.name, num_heads * width)
        if projection is None:
            raise Unsupported(
                f"layer {step.state.layer.name} has no output projection that can be told for sure, so norm-weighted "
                "statistics cannot be computed there; use of='weights'"
            )
        return value_norms(call.v, projection, num_heads)[:, group.heads]

    def _note_problems(self, state: LayerState, call: Call, view: View, rows: slice) -> None:
        new = call.k if rows.start == 0 else call.k[:, :, -call.q.shape[2] :]  # the others were looked at before
        state.note_numbers(call.q, new)
        row = once(
            call.allowed, ("a row without keys", rows.start, id(view.query)), lambda: _sees_nothing(call, view, rows)
        )
        if row is not None:
            self.problems.append(f"token {row} of layer {state.layer.name} is not padding, yet it may attend to no key")

    def close(self) -> None:
        """Finish the trace. Raises Unsupported if the model ran and none of its attention came by."""
        self.waiting.take()
        if self.forwards and not self.called:
            raise Unsupported(
                f"{type(self.model).__name__} ran, and none of its attention could be seen"
                + (f": {self.problems[0]}" if self.problems else "")
            )
        self.trace.put_off(PUT_OFF, filling(self))


def _ends(call: Call, rows: slice) -> bool:
    """Whether a call that does not say where it lies has the last of these rows alone, over all of their keys."""
    return call.first_query is None and call.q.shape[2] < rows.stop - rows.start and call.k.shape[2] == rows.stop


def _sees_nothing(call: Call, view: View, rows: slice) -> int | None:
    """The first token that is not padding and may attend to no key."""
    empty = (call.allowed.counts() == 0).any(1) & view.query.valid[:, rows]
    return rows.start + int(empty.any(0).nonzero()[0]) if bool(empty.any()) else None
