"""Computing is a handler: regard's backends make a model's attention, its own mechanism or another in its place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from regard.hf.aside import aside
from regard.hf.calls import Call, read
from regard.hf.engine import PassedOver, choose, observers
from regard.hf.errors import Unsupported
from regard.hf.exchanged import Edit, Part, computes, joined, narrowed, parts_of, recurrent_inputs
from regard.hf.families import SKIPS_BLOCK_MASKS
from regard.hf.filling import passed_over_rows
from regard.hf.plan import NOTHING, Plan
from regard.hf.seam import AttentionCall, Handler, ShownCall
from regard.hf.sequences import Step, inputs_of, within_seen
from regard.hf.watcher import Watcher
from regard.inputs import Inputs
from regard.mechanism import Mechanism
from regard.protocol import Attention
from regard.recurrent.recurrence import Recurrence
from regard.run import compose

Note = Callable[[Call, Attention, Inputs, list[int]], None]
"""Told of every computation: the layer's whole call, what computes, its inputs, and the heads that they are of."""


class Computing(Handler):
    """The output of an attached model's layers by regard's backends, watched by `watcher`.

    backend: "model" leaves the layers that are not changed to the model's own function. plan: what to compute in place
    of the model's own. edits: changes that are asked about. note: told of what is computed in place of the model's own.
    """

    def __init__(
        self,
        watcher: Watcher,
        backend: str,
        plan: Plan = NOTHING,
        edits: Sequence[Edit] = (),
        note: Note | None = None,
    ) -> None:
        types = {getattr(getattr(module, "config", None), "model_type", None) for module in watcher.model.modules()}
        self.masks = "own" if types & SKIPS_BLOCK_MASKS else "described"
        self.watcher = watcher
        self.backend = backend
        self.plan = plan
        self.edits = tuple(edits)
        self.note = note
        self._output_by: set[str] = set()
        self._passed_over: dict[PassedOver, set[str]] = {}  # in which layers
        watcher.describe_output = self._describe

    def before_forward(self, model: PreTrainedModel, is_outermost: bool, args: Any, kwargs: Any) -> None:
        self.watcher.before_forward(model, is_outermost, args, kwargs)

    def after_forward(self) -> None:
        self.watcher.after_forward()

    def attend(self, call: AttentionCall) -> Tensor | None:
        """The output [B,Tq,H,Dv], with the statistics reduced in the same walk where a backend does that."""
        layer = self.watcher.ids[id(call.module)]
        parts = parts_of(layer, call.query.shape[1], self.plan, self.edits)
        own = self.backend == "model" and all(part.is_own for part in parts)
        if own and not self.edits:
            return self.watcher.attend(call)
        self.watcher.called.add(id(call.module))
        data = within_seen(read(call, layer.name), layer)
        step = self.watcher.follow(call.module, layer, data, [part.heads for part in parts])
        edited = narrowed(layer, data, step.rows, self.edits)
        if own and edited is data:
            if self.watcher.watches(layer):
                with aside(call.query):
                    self.watcher.absorb(step, step.state.groups[0], data, False)
            return None
        if call.dropout:
            raise Unsupported(f"layer {layer.name} drops attention weights (p={call.dropout}); call model.eval() first")
        self._check_tensors(parts)
        out = self._watched(call, step, parts, data, edited)
        if out is None:
            out = joined([(part.heads, self._output(step, part, edited)) for part in parts])
        return out.to(call.query.dtype).transpose(1, 2).contiguous()

    def shown(self, call: ShownCall) -> None:
        """A module that computes its attention by itself can be watched, not exchanged."""
        layer = self.watcher.ids[id(call.module)]
        if self.backend != "model" or self.edits or self.plan.touches(layer.index):
            raise Unsupported(
                f"{layer.name} computes its attention inside its own code, so it can be watched but not exchanged; "
                "train the model with another mechanism instead"
            )
        self.watcher.shown(call)

    def _check_tensors(self, parts: list[Part]) -> None:
        apart = len(parts) > 1 or self.watcher.heads is not None
        for part in parts:
            if apart and isinstance(part.attention, Mechanism) and part.attention.tensors():
                raise Unsupported(
                    f"{part.attention.name} holds tensors, so its heads cannot be taken apart; drop heads= and "
                    "swap_heads="
                )

    def _watched(self, call: AttentionCall, step: Step, parts: list[Part], data: Call, edited: Call) -> Tensor | None:
        """Absorb a call's parts, as edited; the output [B,H,Tq,Dv] if a fused backend made all of it on the way."""
        if not self.watcher.watches(step.state.layer):
            return None
        tensors = (call.query, call.key, call.value)
        needs_grad = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
        fused = {observer.name for observer in observers(self.backend, call.query.device)}
        together = self.backend in fused | {"auto"} and self.watcher.heads is None and not needs_grad
        out = None
        for group in step.state.groups:
            part = next(part for part in parts if group.heads[0] in part.heads)
            if part.other is not None:
                raise Unsupported(
                    f"{part.other.name} has no row of scores to watch; attach with watch=(), or watch other layers"
                )
            with aside(call.query):
                mine = computes(part, edited, group.heads, step.rows)
                out = self.watcher.absorb(step, group, data, together and len(parts) == 1, mine)
        return out

    def _output(self, step: Step, part: Part, data: Call) -> Tensor:
        name = step.state.layer.name
        call = computes(part, data, part.heads, step.rows)
        x = inputs_of(call, step, call.v)
        attention: Attention = part.other or call.mechanism
        if isinstance(attention, Recurrence):
            x = recurrent_inputs(x, attention.name, name)
        if self.note is not None:
            self.note(data, attention, x, part.heads)
        backend = "auto" if self.backend == "model" else self.backend
        if not isinstance(attention, Mechanism):
            return compose.attend(attention, x, backend)[:, :, -data.q.shape[2] :]
        choice = choose(attention, x, backend)
        self._output_by.add(choice.taken)
        for other in choice.passed_over:
            self._passed_over.setdefault(other, set()).add(name)
        return choice.output()

    def _describe(self) -> dict[str, Any]:
        """What a trace says of the output."""
        groups = [group for state in self.watcher.states.values() for group in state.groups]
        by = self._output_by.union(*(group.watching.output_by for group in groups))
        names = [attention.name for attention in self.plan.attentions]
        return {
            "output": ", ".join(sorted(by)) or self.backend,
            "mechanism": names[0] if len(self.plan.rules) == 1 and names else str(self.plan) or None,
            "edits": [str(edit) for edit in self.edits],
            "passed_over": passed_over_rows("output", self._passed_over),
        }
