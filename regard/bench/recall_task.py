"""Multi-query associative recall (Arora et al. 2023, "Zoology", section 3) and the small model that is trained on it.

A text is D pairs, key value key value …, then the D keys again in another order; at each of them the model must say
its value. n = 3 D tokens. What a mechanism forgets of the pairs it cannot answer.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, logsigmoid, pad

from regard import nn as modules
from regard.errors import UserError
from regard.protocol import Attention
from regard.zoo import card

KEYS = VALUES = 64
WIDTH, HEADS, LAYERS = 32, 2, 2

Gates = Callable[[Tensor], dict[str, Tensor]]


def batch(pairs: int, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Tokens [size, 3 · pairs] and the values [size, pairs] that belong to the last `pairs` of them."""
    if not 1 <= pairs <= KEYS:
        raise UserError(f"a text holds 1 to {KEYS} pairs, for there are {KEYS} keys; got {pairs}")
    keys = torch.rand(size, KEYS, generator=generator).argsort(1)[:, :pairs]
    values = torch.randint(VALUES, (size, pairs), generator=generator)
    order = torch.rand(size, pairs, generator=generator).argsort(1)
    told = torch.stack([keys, KEYS + values], 2).flatten(1)
    return torch.cat([told, keys.gather(1, order)], 1), values.gather(1, order)


class Recaller(nn.Module):
    """Embedding, LAYERS times x + norm(mixer(conv(norm(x)))), norm, linear: no feed-forward, so that the mixer must do
    it, and narrow heads, so that a state fills up.

    The convolution sees a token and the two before it (as in Zoology): keys meet their values in every mechanism. The
    norm after the mixer is what recurrences are trained with (DeltaNet, GLA); here every mechanism has it.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.embed = nn.Embedding(KEYS + VALUES, WIDTH)
        self.near = nn.ParameterList(0.5 * torch.randn(WIDTH, 1, 3) for _ in range(LAYERS))
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(LAYERS + 1))
        self.mixers = nn.ModuleList(mixer(name) for _ in range(LAYERS))
        self.scales = nn.ModuleList(nn.RMSNorm(WIDTH) for _ in range(LAYERS))
        self.out = nn.Linear(WIDTH, VALUES)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens [B,n] -> logits [B,n,VALUES]."""
        x = self.embed(tokens)
        for near, norm, mix, scale in zip(self.near, self.norms, self.mixers, self.scales):
            local = conv1d(pad(norm(x).transpose(1, 2), (2, 0)), near, groups=WIDTH).transpose(1, 2)
            x = x + scale(mix(local))
        return self.out(self.norms[-1](x))


class Gated(nn.Module):
    """Causal self-attention by a mechanism, with the gates per token that a recurrence asks for."""

    def __init__(self, mechanism: Attention | str, gates: tuple[str, ...]) -> None:
        super().__init__()
        self.attend = modules.CausalSelfAttention(WIDTH, HEADS, mechanism)
        widths = {"beta": 1, "log_decay": 1, "log_decays": WIDTH // HEADS}
        self.gates = nn.ModuleDict({name: nn.Linear(WIDTH, HEADS * widths[name]) for name in gates})

    def forward(self, x: Tensor) -> Tensor:
        return self.attend(x, per_key={name.rstrip("s"): self._gate(name, x) for name in self.gates})[0]

    def _gate(self, name: str, x: Tensor) -> Tensor:
        found = self.gates[name](x).unflatten(-1, (HEADS, -1)).transpose(1, 2)
        return found[..., 0].sigmoid() if name == "beta" else logsigmoid(found + 4.0) / 4.0


class Remembering(nn.Module):
    """Titans' neural memory as a mixer: a matrix, or a network of one hidden layer that learns in mini-batches."""

    def __init__(self, hidden: int | None = None, mini_batch: int = 1) -> None:
        super().__init__()
        self.memory = modules.NeuralMemory(WIDTH, HEADS, hidden, mini_batch=mini_batch)

    def forward(self, x: Tensor) -> Tensor:
        return self.memory(x)[0]


class GatedByMemory(nn.Module):
    """Titans' memory as a gate, with a window of attention."""

    def __init__(self) -> None:
        super().__init__()
        self.form = modules.MemoryAsGate(WIDTH, HEADS, "window(8)", persistent=0)

    def forward(self, x: Tensor) -> Tensor:
        return self.form(x)


def _retention() -> nn.Module:
    gamma = 1 - 2.0 ** -(5 + torch.arange(HEADS, dtype=torch.float32))
    return Gated(card("retention").make(gamma=gamma), ())


MIXERS: dict[str, Callable[[], nn.Module]] = {
    "linear_recurrent": lambda: Gated(card("linear_recurrent").make(), ()),
    "retention": _retention,
    "gla": lambda: Gated(card("gla").make(), ("log_decays",)),
    "delta": lambda: Gated(card("delta").make(), ("beta",)),
    "gated_delta": lambda: Gated(card("gated_delta").make(), ("beta", "log_decay")),
    "performer_recurrent": lambda: Gated(card("performer_recurrent").make(features=32), ()),
    "neural_memory": Remembering,
    "deep_memory": lambda: Remembering(hidden=32, mini_batch=4),
    "memory_as_gate": GatedByMemory,
}
DEFAULT = ("causal", "alibi", "sparsemax", "sigmoid", "topk(4)", "window(8)", "streaming", *MIXERS)
TEXTS = {"streaming": "window(8) | sinks(2)", "causal": "scaled_dot"}


def mixer(name: str) -> nn.Module:
    """A layer by the name of a recurrence, or by any text form, which is made causal."""
    return MIXERS[name]() if name in MIXERS else Gated(TEXTS.get(name, name), ())
