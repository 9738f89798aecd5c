"""Parameters that a mechanism brings into a model: gates read off keys, and tensors of the mechanism itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from regard.inputs import Inputs
from regard.recurrent.recurrence import CHUNK, Recurrence, State

OPEN = 5.0  # a gate's first bias: nearly nothing is forgotten


class Gates(nn.Module):
    """The gates that a recurrence reads, as projections of a layer's keys: a number or a vector a token and head.

    log_decay = log σ(W k + b) / 16, after Yang 2024 (GLA, section 4.4); every other gate is σ(W k + b). W starts at 0.
    """

    def __init__(self, widths: dict[str, int | None], heads: int, key_width: int) -> None:
        super().__init__()
        self.widths = widths
        for name, width in widths.items():
            size = 1 if width is None else width
            first = OPEN if name == "log_decay" else 0.0
            self.register_parameter(f"{name}_weight", nn.Parameter(torch.zeros(heads, key_width, size)))
            self.register_parameter(f"{name}_bias", nn.Parameter(torch.full((heads, 1, size), first)))

    def forward(self, k: Tensor) -> dict[str, Tensor]:
        """The gates by name, [B,G,T,width] or [B,G,T], from keys [B,G,T,Dk]."""
        found = {}
        for name, width in self.widths.items():
            weight, bias = getattr(self, f"{name}_weight"), getattr(self, f"{name}_bias")
            linear = k.to(weight.dtype) @ weight + bias
            gate = nn.functional.logsigmoid(linear) / 16 if name == "log_decay" else linear.sigmoid()
            found[name] = gate[..., 0] if width is None else gate
        return found


@dataclass(frozen=True, eq=False)
class Gated(Recurrence):
    """A recurrence whose gates are a module's, read off the keys."""

    inner: Recurrence
    module: Gates
    name: str
    source: str
    prepare: tuple[()] = ()

    def recur(self, x: Inputs, state: State | None = None, size: int = CHUNK) -> tuple[Tensor, State]:
        return self.inner.recur(self._with_gates(x), state, size)

    def start(self, x: Inputs) -> State:
        return self.inner.start(self._with_gates(x))

    def step(self, state: State, x: Inputs) -> tuple[State, Tensor]:
        return self.inner.step(state, self._with_gates(x))

    def chunk(self, state: State, x: Inputs) -> tuple[State, Tensor]:
        return self.inner.chunk(state, self._with_gates(x))

    def effective_weights(self, x: Inputs, rows: slice, keys: slice) -> Tensor:
        return self.inner.effective_weights(self._with_gates(x), rows, keys)

    def _with_gates(self, x: Inputs) -> Inputs:
        return x.replace(per_key={**x.per_key, **self.module(x.k)})


def gated(recurrence: Recurrence, heads: int, groups: int, width: int) -> Gated | Recurrence:
    """The recurrence with gates of its own, where it reads any. width: of a key; the widest form of each gate."""
    empty = torch.zeros(1, heads, 1, width)
    at = torch.zeros(1, 1, dtype=torch.int64)
    asked = recurrence.gates(Inputs(empty, empty[:, :groups], empty[:, :groups], at, at))
    if not asked:
        return recurrence
    module = Gates({name: None if sizes is None else max(sizes) for name, sizes in asked.items()}, groups, width)
    return Gated(recurrence, module, recurrence.name, recurrence.source)
