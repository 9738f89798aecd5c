"""A token's way through the layers by rollout: how much of it came from which token of the input, layer by layer."""

from __future__ import annotations

import torch
from torch import Tensor

from regard.seeing.trace import Layer, Trace, TraceError

MOST_TOKENS = 2048


def below(trace: Trace, place: int) -> list[int]:
    """The layers from `place` down to the first, of its stack, kind and tokens, by their places."""
    top = trace.layers[place]
    same = [
        at
        for at, layer in enumerate(trace.layers[: place + 1])
        if (layer.stack, layer.kind, layer.query_axis, layer.key_axis)
        == (top.stack, top.kind, top.query_axis, top.key_axis)
    ]
    return same[::-1]


def rollout(trace: Trace, place: int, row: int, batch: int = 0) -> Tensor:
    """r_l = r_{l+1} (A_l + I) / 2, A_l the mean of a layer's heads, from e_row at `place` down: float64 [layers, n].

    Row 0 is what the token takes at layer `place`, the last what it holds of the input (Abnar and Zuidema 2020,
    section 3). A proxy: heads are averaged, and values and the networks between layers are left out. Raises TraceError
    where queries and keys are not the same tokens, or are more than MOST_TOKENS.
    """
    top = trace.layers[place]
    length = trace.axes[top.query_axis].axis.length
    if top.query_axis != top.key_axis:
        raise TraceError("rollout follows tokens that attend to each other; this layer attends to other tokens")
    if length > MOST_TOKENS:
        raise TraceError(f"rollout is computed up to {MOST_TOKENS} tokens, and these are {length}")
    share = torch.zeros(length, dtype=torch.float64)
    share[row] = 1.0
    found = []
    for at in below(trace, place):
        share = (share @ _mean(trace, trace.layers[at], batch) + share) / 2
        found.append(share)
    return torch.stack(found)


def _mean(trace: Trace, layer: Layer, batch: int) -> Tensor:
    """The mean of a layer's heads, float64 [n, n]."""
    total = torch.zeros(())
    for head in layer.heads:
        total = total + trace.weights(layer, head, batch=batch).double()
    return total / len(layer.heads)
