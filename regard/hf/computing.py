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
from regard.hf.families import SKIPS_BLOCK_MASKS
from regard.hf.filling import passed_over_rows
from regard.hf.layers import LayerId
from regard.hf.seam import AttentionCall, Handler, ShownCall
from regard.hf.sequences import HeadGroup, Step, inputs_of, within_seen
from regard.hf.watcher import Watcher, aside
from regard.mechanism import Mechanism


class Computing(Handler):
    """The output of an attached model's layers by regard's backends, watched by `watcher`.

    mechanism: what to compute in place of the model's own, in the layers and heads with these indices (None: all).
    backend: "model" leaves the layers that are not swapped to the model's own function.
    """

    def __init__(
        self,
        watcher: Watcher,
        backend: str,
        mechanism: Mechanism | None = None,
        layers: frozenset[int] | None = None,
        heads: frozenset[int] | None = None,
    ) -> None:
        types = {getattr(getattr(module, "config", None), "model_type", None) for module in watcher.model.modules()}
        self.masks = "own" if types & SKIPS_BLOCK_MASKS else "described"
        self.watcher = watcher
        self.backend = backend
        self.mechanism = mechanism
        self.layers = layers
        self.heads = heads
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
        other = replace(data, mechanism=self._swapped(data.mechanism)) if swaps else data
        apart = self._apart(layer, data) if swaps else frozenset()
        step = watcher.follow(call.module, layer, data, apart)
        out = None
        if watcher.watches(layer):
            for group in step.state.groups:
                mine = other if not apart or group.heads[0] in apart else data
                out = self._watched(call, step, group, mine, together=not apart)
        if out is None:
            out = self._mixed(step, data, other, apart) if apart else self._output(step, other)
        return out.to(call.query.dtype).transpose(1, 2).contiguous()

    def shown(self, call: ShownCall) -> None:
        """A module that computes its attention by itself can be watched, not exchanged."""
        layer = self.watcher.ids[id(call.module)]
        if self.backend != "model" or self.layers is None or layer.index in self.layers:
            raise Unsupported(
                f"{layer.name} computes its attention inside its own code, so it can be watched but not exchanged; "
                "train the model with another mechanism instead"
            )
        self.watcher.shown(call)

    def _swapped(self, own: Mechanism) -> Mechanism:
        assert self.mechanism is not None
        if (self.watcher.heads or self.heads) is not None and self.mechanism.tensors():
            raise Unsupported(
                f"{self.mechanism.name} holds tensors, so its heads cannot be taken apart; drop heads= and swap_heads="
            )
        return swapped(own, self.mechanism)

    def _apart(self, layer: LayerId, data: Call) -> frozenset[int]:
        """The heads of a layer that are swapped while others are not."""
        num_heads = data.q.shape[1]
        outside = [head for head in self.heads or () if not 0 <= head < num_heads]
        if outside:
            raise Unsupported(f"layer {layer.name} has heads 0 to {num_heads - 1}; head {outside[0]} was to be swapped")
        return frozenset() if self.heads is None or len(self.heads) == num_heads else self.heads

    def _watched(self, call: AttentionCall, step: Step, group: HeadGroup, data: Call, together: bool) -> Tensor | None:
        """Absorb a call; its output [B,H,Tq,Dv] if a fused backend made it on the way."""
        tensors = (call.query, call.key, call.value)
        needs_grad = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
        fused = {observer.name for observer in observers(self.backend, call.query.device)}
        together &= self.backend in fused | {"auto"} and self.watcher.heads is None and not needs_grad
        with aside(call.query):
            return self.watcher.absorb(step, group, data, together)

    def _mixed(self, step: Step, own: Call, other: Call, apart: frozenset[int]) -> Tensor:
        """The output where some heads are swapped: each part by itself, heads put back in order."""
        rest = [head for head in range(own.q.shape[1]) if head not in apart]
        parts = [self._output(step, call.of_heads(heads)) for call, heads in ((other, sorted(apart)), (own, rest))]
        order = [*sorted(apart), *rest]
        return torch.cat(parts, 1)[:, sorted(range(len(order)), key=order.__getitem__)]

    def _output(self, step: Step, data: Call) -> Tensor:
        backend = "auto" if self.backend == "model" else self.backend
        choice = choose(data.mechanism, inputs_of(data, step, data.v), backend)
        self._output_by.add(choice.taken)
        for other in choice.passed_over:
            self._passed_over.setdefault(other, set()).add(step.state.layer.name)
        return choice.output()

    def _describe(self) -> dict[str, Any]:
        """What a trace says of the output."""
        groups = [group for state in self.watcher.states.values() for group in state.groups]
        by = self._output_by.union(*(group.watching.output_by for group in groups))
        return {
            "output": ", ".join(sorted(by)) or self.backend,
            "mechanism": None if self.mechanism is None else self.mechanism.name,
            "passed_over": passed_over_rows("output", self._passed_over),
        }
