"""A memory that learns while it reads: Titans' neural memory as a recurrence."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import silu

from regard.errors import UserError
from regard.inputs import Inputs
from regard.mechanism import Prepare
from regard.parts.scores import widened
from regard.protocol import NotObservable
from regard.recurrent.momentum import unrolled
from regard.recurrent.recurrence import Recurrence, State, per_head, tokens

Layers = tuple[Tensor, ...]
Slope = tuple[Tensor, Tensor]
"""The gradients of a layer as factors: token t's is a_tᵀ g_t; a [B,H,T,in], g [B,H,T,out]."""


@dataclass(frozen=True, eq=False)
class NeuralMemory(Recurrence):
    """M_t = (1 - α_t) M_{t-1} + S_t, S_t = η_t S_{t-1} - θ_t ∇ℓ(M_{t'}; k_t, v_t), o_t = M_t(q_t), where
    ℓ(M; k, v) = ‖M(k) - v‖² and t' is the end of the mini-batch before t's (Titans: Behrouz 2025, eq. 12-15 and
    section 3.2). With mini_batch = 1, t' = t - 1.

    M(k) = silu(k W_1) W_2, or k W_1 without w_2. Start: w_1 [H,Dk,M], w_2 [H,M,Dv] or None (then M = Dv).
    Gates in (0, 1), per token: per_key "forget" α, "momentum" η, "rate" θ, each [B,H,T].

    A chunk computes a mini-batch at once: its gradients do not depend on each other. One of 1 leaves nothing to do at
    once, and a chunk is its steps; but not for a matrix memory (no w_2), whose gradients are linear in the memory:
    they come from one triangular system per chunk. State: the layers, their momentum S, the layers at t' and how
    many tokens were learned [B,1,1,1]; padding is not counted.
    """

    name: str
    source: str
    w_1: Tensor
    w_2: Tensor | None = None
    mini_batch: int = 1
    prepare: tuple[Prepare, ...] = ()

    def __post_init__(self) -> None:
        if self.mini_batch < 1:
            raise UserError(f"{self.name}: a mini-batch holds at least 1 token, got {self.mini_batch}")

    def gates(self, x: Inputs) -> dict[str, tuple[int, ...] | None]:
        return dict.fromkeys(("forget", "momentum", "rate"))

    def start(self, x: Inputs) -> State:
        layers = [self.w_1] if self.w_2 is None else [self.w_1, self.w_2]
        if self.w_1.shape[0] != x.q.shape[1] or self.w_1.shape[1] != x.q.shape[-1]:
            raise UserError(f"{self.name}: w_1 {list(self.w_1.shape)} does not fit queries {list(x.q.shape)}")
        memory = tuple(w.to(widened(x.q).dtype).expand(x.q.shape[0], *w.shape) for w in layers)
        learned = torch.zeros(x.q.shape[0], 1, 1, 1, dtype=torch.int64, device=x.q.device)
        return memory, tuple(torch.zeros_like(w) for w in memory), memory, learned

    def step(self, state: State, x: Inputs) -> tuple[State, Tensor]:
        assert x.v is not None
        memory, momentum, anchor, learned = state
        alpha, eta, theta = (gate[..., None] for gate in _gates(x))
        slopes = _slopes(anchor, per_head(x, x.k), per_head(x, x.v))
        moved = tuple(eta * m - theta * (a.mT @ g) for m, (a, g) in zip(momentum, slopes, strict=True))
        changed = tuple((1 - alpha) * w + m for w, m in zip(memory, moved, strict=True))
        valid = _valid(x)[:, None, :, None]
        momentum = tuple(torch.where(valid, new, old) for new, old in zip(moved, momentum, strict=True))
        memory = tuple(torch.where(valid, new, old) for new, old in zip(changed, memory, strict=True))
        return self._state(memory, momentum, anchor, learned + valid), _read(memory, widened(x.q))

    def chunk(self, state: State, x: Inputs) -> tuple[State, Tensor]:
        outputs = []
        for part in self._parts(state, x):
            run = self.step if part.stop - part.start == 1 else self._together
            state, out = run(state, tokens(x, part))
            outputs.append(out)
        return state, torch.cat(outputs, 2)

    def effective_weights(self, x: Inputs, rows: slice, keys: slice) -> Tensor:
        raise NotObservable(
            f"{self.name} has no attention weights, not even effective ones: each value enters through the gradient "
            "of a loss at a memory that earlier values changed, so the output is not a weighted sum of values"
        )

    @property
    def _solvable(self) -> bool:
        return self.w_2 is None and self.mini_batch == 1

    def _state(self, memory: Layers, momentum: Layers, anchor: Layers, learned: Tensor) -> State:
        """With the layers at which the next token takes its gradient: these, if it begins a mini-batch."""
        begins = learned % self.mini_batch == 0
        anchor = tuple(torch.where(begins, now, before) for now, before in zip(memory, anchor, strict=True))
        return memory, momentum, anchor, learned

    def _parts(self, state: State, x: Inputs) -> list[slice]:
        """The tokens in runs within which no sequence begins a mini-batch, but at the first."""
        size, valid = x.q.shape[2], _valid(x).long()
        if self._solvable:
            return [slice(0, size)]
        learned = state[3][:, 0, 0] + valid.cumsum(1) - valid
        begins = ((learned % self.mini_batch == 0) & (valid == 1)).any(0)
        cuts = sorted({0, *begins.nonzero()[:, 0].tolist(), size})
        return [slice(begin, end) for begin, end in pairwise(cuts)]

    def _together(self, state: State, x: Inputs) -> tuple[State, Tensor]:
        """Tokens of one mini-batch (or any, for a matrix memory) without a loop over them."""
        assert x.v is not None
        memory, momentum, anchor, learned = state
        k, v, valid = per_head(x, x.k), per_head(x, x.v), _valid(x)
        alpha, eta, theta = _gates(x)
        sums = unrolled(1 - alpha, eta, theta, valid[:, None])
        slopes = (sums.slope(memory[0], momentum[0], k, v),) if self._solvable else _slopes(anchor, k, v)
        out = widened(x.q)
        for layer, (w, s, slope) in enumerate(zip(memory, momentum, slopes, strict=True)):
            out = sums.read(w, s, slope, silu(out) if layer else out)
        ends = [sums.end(w, s, slope) for w, s, slope in zip(memory, momentum, slopes, strict=True)]
        memory, momentum = (tuple(layers) for layers in zip(*ends, strict=True))
        return self._state(memory, momentum, anchor, learned + valid.sum(1)[:, None, None, None]), out


def _gates(x: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    """α, η and θ [B,H,T]."""
    alpha, eta, theta = (per_head(x, x.per_key[gate]) for gate in ("forget", "momentum", "rate"))
    return alpha, eta, theta


def _valid(x: Inputs) -> Tensor:
    """bool [B,T]."""
    if x.key_valid is not None:
        return x.key_valid
    return torch.ones(x.k.shape[0], x.k.shape[2], dtype=torch.bool, device=x.k.device)


def _read(memory: Layers, q: Tensor) -> Tensor:
    hidden = q @ memory[0]
    return hidden if len(memory) == 1 else silu(hidden) @ memory[1]


def _slopes(memory: Layers, k: Tensor, v: Tensor) -> tuple[Slope, ...]:
    """∇ℓ of each token at one memory, written out so that it is itself differentiable."""
    hidden = k @ memory[0]
    if len(memory) == 1:
        return ((k, 2 * (hidden - v)),)
    gate = hidden.sigmoid()
    active = hidden * gate
    error = 2 * (active @ memory[1] - v)
    back = (error @ memory[1].mT) * (gate + active * (1 - gate))
    return (k, back), (active, error)
