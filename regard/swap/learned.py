"""Parameters that a mechanism brings into a model: gates and feature maps read off a layer's queries and keys, the
start of a memory, projections along the sequence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from regard.errors import UserError
from regard.inputs import Inputs
from regard.parts.prepare import ProjectSequence
from regard.parts.scores import widened
from regard.protocol import Engine
from regard.recurrent.recurrence import CHUNK, Recurrence, State, ready

FIRST = {"log_decay": 5.0, "forget": -5.0, "rate": -2.0}  # a gate's first bias: nearly nothing is forgotten


class Gates(nn.Module):
    """The gates that a recurrence reads, as projections of a layer's keys: a number or a vector a token and head.

    log_decay = log σ(W k + b) / 16, after Yang 2024 (GLA, section 4.4); every other gate is σ(W k + b). W starts at 0.
    """

    def __init__(self, widths: Mapping[str, int | None], heads: int, key_width: int) -> None:
        super().__init__()
        self.widths = dict(widths)
        for name, width in widths.items():
            size = 1 if width is None else width
            self.register_parameter(f"{name}_weight", nn.Parameter(torch.zeros(heads, key_width, size)))
            self.register_parameter(f"{name}_bias", nn.Parameter(torch.full((heads, 1, size), FIRST.get(name, 0.0))))

    def forward(self, k: Tensor) -> dict[str, Tensor]:
        """The gates by name, [B,G,T,width] or [B,G,T], from keys [B,G,T,Dk]."""
        made = {}
        for name, width in self.widths.items():
            weight, bias = getattr(self, f"{name}_weight"), getattr(self, f"{name}_bias")
            linear = k.to(weight.dtype) @ weight + bias
            gate = nn.functional.logsigmoid(linear) / 16 if name == "log_decay" else linear.sigmoid()
            made[name] = gate[..., 0] if width is None else gate
        return made


class Maps(nn.Module):
    """What comes before a recurrence's own feature map φ: q ← q W_q + b_q and k ← k W_k + b_k, of each head its own.

    W_q [H,Dk,M], W_k [G,Dk,M], M = copies · Dk. They start as the identity, `copies` times side by side: a quotient of
    two sums is the same with features that stand twice, so the start changes nothing. With φ = elu + 1, which is the
    exponential below 0, such a map contains Hedgehog's (Zhang 2024) and the Performer's random features.
    """

    def __init__(self, heads: int, groups: int, key_width: int, copies: int) -> None:
        super().__init__()
        for name, count in (("q", heads), ("k", groups)):
            weight = torch.eye(key_width).repeat(1, copies).expand(count, -1, -1).clone()
            self.register_parameter(f"{name}_weight", nn.Parameter(weight))
            self.register_parameter(f"{name}_bias", nn.Parameter(torch.zeros(count, 1, copies * key_width)))

    def forward(self, x: Inputs) -> Inputs:
        """The inputs with mapped queries [B,H,T,M] and keys [B,G,T,M]."""
        q, k = (
            t.to(getattr(self, f"{n}_weight").dtype) @ getattr(self, f"{n}_weight") + getattr(self, f"{n}_bias")
            for n, t in (("q", x.q), ("k", x.k))
        )
        return x.replace(q=q, k=k)


class Memory(nn.Module):
    """The start of Titans' memory: w_1 [H,Dk,M], w_2 [H,M,Dv], with the variance that keeps lengths."""

    def __init__(self, heads: int, key_width: int, hidden: int, value_width: int) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(0)
        self.w_1 = nn.Parameter(torch.randn(heads, key_width, hidden, generator=random) * key_width**-0.5)
        self.w_2 = nn.Parameter(torch.randn(heads, hidden, value_width, generator=random) * hidden**-0.5)


class Projections(nn.Module):
    """Linformer's E and F [m,n] for sequences of up to n tokens: slot i starts as the mean of the i-th m-th of them."""

    def __init__(self, slots: int, tokens: int) -> None:
        super().__init__()
        at = torch.arange(tokens) * slots // tokens
        mean = nn.functional.one_hot(at, slots).mT.float()
        mean = mean / mean.sum(1, keepdim=True)
        self.e, self.f = nn.Parameter(mean), nn.Parameter(mean.clone())


@dataclass(frozen=True, eq=False)
class ProjectFirst:
    """K ← E K, V ← F V with as many columns of E and F [m,n] as there are keys (Linformer: Wang 2020, eq. 7)."""

    e: Tensor
    f: Tensor

    def __call__(self, x: Inputs) -> Inputs:
        tokens = x.k.shape[2]
        if tokens > self.e.shape[1]:
            raise UserError(
                f"linformer's projections are for up to {self.e.shape[1]} tokens, and there are {tokens}; "
                "swap with more tokens"
            )
        if x.allowed is not None and bool((x.allowed.counts() == tokens).all()):
            x = x.replace(allowed=None)  # a mask that hides nothing
        return ProjectSequence(self.e[:, :tokens], self.f[:, :tokens])(x)


@dataclass(frozen=True, eq=False)
class Learned(Recurrence):
    """A recurrence with parameters of its own: maps before its feature map, gates read off the keys."""

    inner: Recurrence
    maps: Maps | None
    gating: Gates | None
    name: str
    source: str
    prepare: tuple[()] = ()

    def recur(self, x: Inputs, state: State | None = None, size: int = CHUNK) -> tuple[Tensor, State]:
        return self.inner.recur(self._mapped(x), state, size)

    def start(self, x: Inputs) -> State:
        return self.inner.start(self._ready(x))

    def step(self, state: State, x: Inputs) -> tuple[State, Tensor]:
        return self.inner.step(state, self._ready(x))

    def chunk(self, state: State, x: Inputs) -> tuple[State, Tensor]:
        return self.inner.chunk(state, self._ready(x))

    def weights(self, x: Inputs, rows: slice, keys: slice, engine: Engine) -> Tensor:
        return self.inner.weights(self._mapped(x), rows, keys, engine)

    def effective_weights(self, x: Inputs, rows: slice, keys: slice) -> Tensor:
        return self.inner.effective_weights(self._ready(x), rows, keys)

    def _mapped(self, x: Inputs) -> Inputs:
        if self.gating is not None:
            x = x.replace(per_key={**x.per_key, **self.gating(widened(x.k))})
        return x if self.maps is None else self.maps(x)

    def _ready(self, x: Inputs) -> Inputs:
        return ready(self.inner, self._mapped(x))
