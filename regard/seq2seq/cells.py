"""One step of a recurrent cell whose input has been projected before: all steps' inputs in one product."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from regard.seq2seq import unrolled

State = tuple[Tensor, ...]
"""(h,) of a GRU, (h, c) of an LSTM; each [B,H]."""


@dataclass(frozen=True)
class Products:
    """A cell's two products at each step: of the state, and of the context where there is one."""

    recurrent: Callable[[Tensor], Tensor]
    context: Callable[[Tensor], Tensor] | None


class Cell(nn.Module):
    """A GRU (Cho 2014, eq. 5-8, torch's form) or LSTM (Hochreiter 1997, with a forget gate) in two halves.

    x W_x for all steps at once (`project`), the rest one step at a time (`step`). input_width: of the words' half;
    context_width: of what only a step knows, 0 for nothing.
    """

    def __init__(self, kind: str, input_width: int, context_width: int, hidden: int) -> None:
        super().__init__()
        gates = 3 if kind == "gru" else 4
        self.kind, self.hidden = kind, hidden
        self.input = nn.Linear(input_width, gates * hidden)
        self.context = nn.Linear(context_width, gates * hidden, bias=False) if context_width else None
        self.recurrent = nn.Linear(hidden, gates * hidden)
        for weight in (self.input.weight, self.recurrent.weight, *([self.context.weight] if self.context else [])):
            for gate in weight.data.chunk(gates):
                nn.init.xavier_uniform_(gate)
        for gate in self.recurrent.weight.data.chunk(gates):
            nn.init.orthogonal_(gate)
        nn.init.zeros_(self.input.bias)
        nn.init.zeros_(self.recurrent.bias)

    def project(self, x: Tensor) -> Tensor:
        """x [...,input_width] -> its part of the gates [...,gates · H]."""
        return self.input(x)

    def start(self, h: Tensor) -> State:
        """The state that begins with h; an LSTM's memory begins with zeros."""
        return (h,) if self.kind == "gru" else (h, torch.zeros_like(h))

    def products(self) -> Products:
        """For a loop over steps; while training, the weights' gradients are taken once for all of them."""
        if not unrolled.trains(self):
            return Products(self.recurrent, self.context)
        shared = unrolled.SharedLinear(self.recurrent.weight, self.recurrent.bias)
        return Products(shared, None if self.context is None else unrolled.SharedLinear(self.context.weight))

    def step(self, projected: Tensor, context: Tensor | None, state: State, products: Products) -> State:
        """The next state. projected: [B,gates · H] of `project`; context [B,context_width]."""
        if context is not None and products.context is not None:
            projected = projected + products.context(context)
        again = products.recurrent(state[0])
        return self._gru(projected, again, state) if self.kind == "gru" else self._lstm(projected + again, state)

    def _gru(self, x: Tensor, again: Tensor, state: State) -> State:
        (h,) = state
        if unrolled.trains(self):
            return (unrolled.gru(x, again, h),)
        width = 2 * self.hidden
        reset, update = torch.sigmoid(x[:, :width] + again[:, :width]).chunk(2, 1)
        new = torch.tanh(x[:, width:] + reset * again[:, width:])
        return (new + update * (h - new),)

    def _lstm(self, gates: Tensor, state: State) -> State:
        _, c = state
        i, f, g, o = gates.chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c
