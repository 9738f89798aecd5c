"""Computing is a handler: regard's backends make a model's attention, its own mechanism or another in its place."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from regard.hf.calls import Call, read, swapped
from regard.hf.engine import PassedOver, choose, observers
from regard.hf.errors import Unsupported
from regard.hf.filling import passed_over_rows
from regard.hf.seam import AttentionCall, Handler
from regard.hf.sequences import Step, inputs_of, within_seen
from regard.hf.watcher import Watcher, aside
from regard.mechanism import Mechanism


class Computing(Handler):
    """The output of an attached model's layers by regard's backends, watched by `watcher`.

    mechanism: what to compute in place of the model's own, in the layers with these indices (None: all). backend:
    "model" leaves the layers that are not swapped to the model's own function.
    """

    masks = "described"

    def __init__(
        self, watcher: Watcher, backend: str, mechanism: Mechanism | None = None, layers: frozenset[int] | None = None
    ) -> None:
        self.watcher = watcher
        self.backend = backend
        self.mechanism = mechanism
        self.layers = layers
        self._output_by: set[str] = set()
        self._passed_over: dict[PassedOver, set[str]] = {}  # in which layers
        watcher.describe_output = self._describe

    def before_forward(self, model: PreTrainedModel, is_outermost: bool, args: Any, kwargs: Any) -> None:
        self.watcher.before_forward(model, is_outermost, args, kwargs)

    def attend(self, call: AttentionCall) -> Tensor | None:
        """The output [B,Tq,H,Dv], with the statistics reduced in the same walk where a backend does that."""
        watcher = self.watcher
        layer = watcher.ids[id(call.module)]
        swaps = self.mechanism is not None and (self.layers is None or layer.index in self.layers)
        if not swaps and self.backend == "model":
            return watcher.attend(call)
        watcher.called.add(id(call.module))
        if call.dropout:
            raise Unsupported(f"layer {layer.name} drops attention weights (p={call.dropout}); call model.eval() first")
        data = within_seen(read(call, layer.name), layer)
        if swaps:
            data = replace(data, mechanism=self._swapped(data.mechanism))
        step = watcher.follow(call.module, layer, data)
        out = self._watched(call, step, data) if watcher.watches(layer) else None
        if out is None:
            out = self._output(step, data)
        return out.to(call.query.dtype).transpose(1, 2).contiguous()

    def _swapped(self, own: Mechanism) -> Mechanism:
        assert self.mechanism is not None
        if self.watcher.heads is not None and self.mechanism.tensors():
            raise Unsupported(f"{self.mechanism.name} holds tensors, so its heads cannot be watched apart; drop heads=")
        return swapped(own, self.mechanism)

    def _watched(self, call: AttentionCall, step: Step, data: Call) -> Tensor | None:
        """Absorb a call; its output [B,H,Tq,Dv] if a fused backend made it on the way."""
        tensors = (call.query, call.key, call.value)
        needs_grad = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
        fused = {observer.name for observer in observers(self.backend, call.query.device)}
        together = self.backend in fused | {"auto"} and self.watcher.heads is None and not needs_grad
        with aside(call.query):
            return self.watcher.absorb(step, data, together)

    def _output(self, step: Step, data: Call) -> Tensor:
        backend = "auto" if self.backend == "model" else self.backend
        choice = choose(data.mechanism, inputs_of(data, step, data.v), backend)
        self._output_by.add(choice.taken)
        for other in choice.passed_over:
            self._passed_over.setdefault(other, set()).add(step.state.layer.name)
        return choice.output()

    def _describe(self) -> dict[str, Any]:
        """What a trace says of the output."""
        by = self._output_by.union(*(state.watching.output_by for state in self.watcher.states.values()))
        return {
            "output": ", ".join(sorted(by)) or self.backend,
            "mechanism": None if self.mechanism is None else self.mechanism.name,
            "passed_over": passed_over_rows("output", self._passed_over),
        }
