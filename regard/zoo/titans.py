"""Titans: a neural memory that learns at test time, and its three forms."""

from __future__ import annotations

from torch import Tensor

from regard.inputs import Inputs
from regard.parts.prepare import Normalise
from regard.recurrent import NeuralMemory
from regard.zoo.card import Card, Sizes

SOURCE = "Behrouz et al. 2025, Titans: Learning to Memorize at Test Time, eq. 9-15 and section 3.2"
FORM = "it joins the memory with attention and layers of its own; it belongs to nn, built on neural_memory"


def neural_memory(*, w_1: Tensor, w_2: Tensor | None = None, mini_batch: int = 1) -> NeuralMemory:
    """M_t = (1 - α) M_{t-1} + S_t, S_t = η S_{t-1} - θ ∇‖M(k) - v‖², o = M_t(q). Starts at silu(k w_1) w_2, or k w_1.

    w_1 [H,Dk,M], w_2 [H,M,Dv] or None; gates per token: per_key "forget", "momentum", "rate" [B,H,T]. Queries and keys
    are brought to unit length (section 4.4). mini_batch: tokens whose gradients are taken at one memory, the one before
    the first of them, and so computed at once (section 3.2); 1 is the recurrence of eq. 12-15.
    """
    return NeuralMemory("neural_memory", SOURCE, w_1, w_2, mini_batch, prepare=(Normalise(),))


def _gated(x: Inputs, s: Sizes) -> Inputs:
    shape = (x.k.shape[0], x.q.shape[1], x.k.shape[2])
    gates = {"forget": (8, 0.1), "momentum": (9, 0.9), "rate": (10, 0.1)}
    found = {name: most * s.normal(*shape, seed=seed).sigmoid() for name, (seed, most) in gates.items()}
    return x.replace(per_key=found)


def _form(name: str, line: str, equation: str, source: str, attends: str) -> Card:
    return Card(name, "recurrences", line, equation, source, "O(n w d + n d²)", "O(n d)", attends, refused=FORM)


CARDS = (
    Card(
        name="neural_memory",
        family="recurrences",
        line="A small network is trained on each key and value as they pass, and asked with each query.",
        equation="S_t = η_t S_{t-1} - θ_t ∇‖M_{t'}(k_t) - v_t‖²,  M_t = (1 - α_t) M_{t-1} + S_t,  o_t = M_t(q_t);  "
        "t' = t - 1, or the end of the mini-batch before t's",
        source=SOURCE,
        time="O(n d m), m the hidden width",
        memory="O(d m) state",
        stored="",
        attends="the past, through a learned network: there are no weights to show",
        factory=neural_memory,
        example=lambda s: {
            "w_1": 0.5 * s.normal(s.heads, s.key_width, 3, seed=1),
            "w_2": 0.5 * s.normal(s.heads, 3, s.value_width, seed=2),
        },
        arrange=_gated,
        parameters={"w_1": "[H,Dk,M]: the memory's start", "w_2": "[H,M,Dv]: its second layer"},
    ),
    _form(
        "memory_as_context",
        "What the memory recalls stands before the segment as extra tokens.",
        "o = Attn([persistent ; M(q) ; x]),  o ⊗ M(o)",
        "Behrouz et al. 2025, Titans, eq. 21-25 (MAC)",
        "its segment, persistent tokens and what the memory recalls",
    ),
    _form(
        "memory_as_gate",
        "A window of attention and the memory side by side, one gating the other.",
        "o = SWA([persistent ; x]) ⊗ M(x)",
        "Behrouz et al. 2025, Titans, eq. 26-28 (MAG)",
        "a window, and the memory",
    ),
    _form(
        "memory_as_layer",
        "The memory first, a window of attention on top.",
        "o = SWA(M([persistent ; x]))",
        "Behrouz et al. 2025, Titans, eq. 29-31 (MAL)",
        "a window of what the memory gives",
    ),
)
