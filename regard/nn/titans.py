"""Titans: a memory that learns at test time, as a module, and its three forms (Behrouz 2025, sections 3 and 4)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, silu

from regard.errors import UserError
from regard.inputs import inputs
from regard.mechanism import Mechanism
from regard.nn.mechanisms import Given, built, head_width, joined, made_causal, settled, split
from regard.nn.self_attention import SelfAttention
from regard.parts.masks import Or, sinks
from regard.recurrent import State
from regard.zoo.titans import neural_memory

GATES = ("forget", "momentum", "rate")


class NeuralMemory(nn.Module):
    """M_t = (1 - α_t) M_{t-1} + S_t, S_t = η_t S_{t-1} - θ_t ∇‖M_{t'}(k_t) - v_t‖², o_t = M_t(q_t) W_o (eq. 9-15).

    width: of the tokens; hidden: the memory's hidden width (None: a matrix memory). Gates come from each token;
    θ stays below `rate` (None: 0.5, or 0.1 with a hidden layer, whose slopes can grow as it learns). Queries and keys
    have unit length (section 4.4). mini_batch: tokens whose gradients are taken at one memory M_{t'}, the one before
    the first of them (section 3.2), and added up; 1 is t' = t - 1, which for a memory with a hidden layer is a loop
    over tokens.
    """

    def __init__(
        self, width: int, heads: int = 1, hidden: int | None = None, rate: float | None = None, *, mini_batch: int = 1
    ) -> None:
        super().__init__()
        each = head_width(width, heads, "a width")
        if mini_batch < 1:
            raise UserError(f"a mini-batch holds at least 1 token, got {mini_batch}")
        self.heads, self.mini_batch = heads, mini_batch
        self.rate = (0.5 if hidden is None else 0.1) if rate is None else rate
        self.query, self.key, self.value = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.gates = nn.Linear(width, 3 * heads)
        self.out = nn.Linear(width, width, bias=False)
        shapes = [(heads, each, each)] if hidden is None else [(heads, each, hidden), (heads, hidden, each)]
        self.start = nn.ParameterList(0.5 * torch.randn(shape) / shape[1] ** 0.5 for shape in shapes)
        with torch.no_grad():
            self.gates.bias.copy_(torch.tensor([-4.0, 0.0, 0.0]).repeat_interleave(heads))

    def forward(self, x: Tensor, state: State | None = None, valid: Tensor | None = None) -> tuple[Tensor, State]:
        """Learn and read token by token: x [B,T,width] -> [B,T,width], and the memory after the last token."""
        gates = self.gates(x).sigmoid().unflatten(-1, (3, self.heads)).permute(2, 0, 3, 1)
        gates = torch.stack([gates[0], gates[1], self.rate * gates[2]])
        return self._run(x, gates, state, valid)

    def read(self, x: Tensor, state: State | None = None) -> Tensor:
        """Read without learning, M(q): a step whose gates are all 0 changes nothing. [B,T,width]."""
        return self._run(x, x.new_zeros(3, x.shape[0], self.heads, x.shape[1]), state, None)[0]

    def _run(self, x: Tensor, gates: Tensor, state: State | None, valid: Tensor | None) -> tuple[Tensor, State]:
        q, k = (normalize(split(silu(part(x)), self.heads), dim=-1) for part in (self.query, self.key))
        v = split(silu(self.value(x)), self.heads)
        given = inputs(q, k, v, key_valid=valid, per_key=dict(zip(GATES, gates, strict=True)))
        memory = neural_memory(w_1=self.start[0], w_2=self._second(), mini_batch=self.mini_batch)
        found, state = memory.recur(given, state)
        return self.out(joined(found)).to(x.dtype), state

    def _second(self) -> Tensor | None:
        return self.start[1] if len(self.start) > 1 else None


class _Form(nn.Module):
    """What the three forms share: a memory, persistent tokens that hold no input (eq. 19), and attention.

    persistent: how many of those; hidden, mini_batch: of the memory, as NeuralMemory's.
    """

    def __init__(
        self,
        width: int,
        heads: int = 1,
        mechanism: Given = "window(64)",
        *,
        persistent: int = 4,
        hidden: int | None = None,
        mini_batch: int = 1,
    ) -> None:
        super().__init__()
        if persistent < 0:
            raise UserError(f"persistent tokens are counted from 0, got {persistent}")
        self.memory = NeuralMemory(width, heads, hidden, mini_batch=mini_batch)
        self.persistent = nn.Parameter(0.02 * torch.randn(persistent, width))
        attention = made_causal(built(settled(mechanism)))
        if isinstance(attention, Mechanism) and persistent:
            attention = attention.replace(mask=Or(attention.mask, sinks(persistent)))
        self.attend = SelfAttention(width, heads, attention)

    def _led(self, x: Tensor) -> Tensor:
        """[persistent ; x]."""
        return torch.cat([self.persistent.expand(x.shape[0], -1, -1), x], 1)


class MemoryAsContext(_Form):
    """y = Attn([persistent ; M(q) ; segment]), M learns y, o = y ⊗ M(y): what the memory of the segments before
    recalls stands among the tokens as further ones (MAC, eq. 21-25). segment: tokens at a time. Options: persistent,
    hidden, mini_batch.

    Causal in every token: what is recalled for a token stands right before it, and y_i meets the memory that has
    learned y_1 … y_i (the paper puts a segment's recalled tokens first and reads after the whole segment).
    """

    def __init__(
        self, width: int, heads: int = 1, mechanism: Given = "scaled_dot", *, segment: int = 64, **options: Any
    ) -> None:
        super().__init__(width, heads, mechanism, **options)
        if segment < 1:
            raise UserError(f"a segment holds at least 1 token, got {segment}")
        self.segment = segment

    def forward(self, x: Tensor) -> Tensor:
        """[B,T,width] -> [B,T,width]."""
        state, outputs = None, []
        for part in x.split(self.segment, 1):
            recalled = self.memory.read(part, state)
            mixed = torch.stack([recalled, part], 2).flatten(1, 2)
            y = self.attend(self._led(mixed))[0][:, self.persistent.shape[0] + 1 :: 2]
            learned, state = self.memory(y, state)
            outputs.append(y * learned)
        return torch.cat(outputs, 1)


class MemoryAsGate(_Form):
    """o = norm(SWA([persistent ; x])) ⊗ silu(norm(M([persistent ; x]))): a window and the memory side by side, one
    gating the other (MAG, eq. 26-28). Options: persistent, hidden, mini_batch."""

    def __init__(self, width: int, heads: int = 1, mechanism: Given = "window(64)", **options: Any) -> None:
        super().__init__(width, heads, mechanism, **options)
        self.norm_attention, self.norm_memory = nn.RMSNorm(width), nn.RMSNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """[B,T,width] -> [B,T,width]."""
        led = self._led(x)
        seen, recalled = self.attend(led)[0], self.memory(led)[0]
        return (self.norm_attention(seen) * silu(self.norm_memory(recalled)))[:, -x.shape[1] :]


class MemoryAsLayer(_Form):
    """o = SWA(M([persistent ; x])): the memory first, a window of attention on top (MAL, eq. 29-31).

    Options: persistent, hidden, mini_batch.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[B,T,width] -> [B,T,width]."""
        recalled = self.memory(self._led(x))[0]
        return self.attend(recalled)[0][:, -x.shape[1] :]
