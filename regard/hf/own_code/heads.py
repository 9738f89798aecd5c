"""Weights as [batch, heads, queries, keys], from the shape in which a model made them."""

from __future__ import annotations

import re

from torch import Tensor, nn

HEADS = (
    "num_attention_heads",
    "num_heads",
    "n_heads",
    "n_head",
    "nhead",
    "heads",
    "num_head",
    "decoder_attention_heads",
)


def number_of_heads(module: nn.Module) -> int | None:
    """How many heads an attention module says it has."""
    for name in HEADS:
        value = getattr(module, name, None)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return None


def by_head(weights: Tensor, module: nn.Module) -> tuple[Tensor, str] | str:
    """(weights [B, H, Tq, Tk], how the axes are known), or a sentence that says why they are not."""
    heads = number_of_heads(module)
    if weights.ndim == 2:
        return "its weights are one matrix of two axes, which names neither batch nor heads"
    if weights.ndim == 3:
        if heads is None:
            return "its weights have three axes and the module does not say how many heads it has"
        if weights.shape[0] % heads:
            return f"its weights have {weights.shape[0]} rows of matrices, which {heads} heads do not divide"
        return weights.unflatten(0, (-1, heads)), f"[batch · {heads} heads, queries, keys]"
    if weights.ndim > 4:
        gathered = _four_axes(weights, module, heads)
        if isinstance(gathered, str):
            return gathered
        weights = gathered
    if heads is None or weights.shape[1] == heads:
        said = "" if heads is None else f", {heads} heads as the module says"
        return weights, f"[batch, heads, queries, keys]{said}"
    if weights.shape[0] == heads:
        return weights.transpose(0, 1), f"[heads, batch, queries, keys], {heads} heads as the module says"
    shape = re.sub(r"[()]", "", str(tuple(weights.shape)))
    return f"its weights are [{shape}], and none of the first two axes has the module's {heads} heads"


# Which axis of five are the heads, where the class has as many groups of tokens as heads and shapes cannot tell.
HEADS_AXIS = {"HieraMaskUnitAttention": 1, "ProphetNetNgramSelfAttention": 2}


def _four_axes(weights: Tensor, module: nn.Module, heads: int | None) -> Tensor | str:
    """Groups of tokens that attend apart (windows, streams) as further sequences of the batch, before the heads."""
    leading = list(weights.shape[:-2])
    axis = HEADS_AXIS.get(type(module).__name__)
    if axis is None:
        at = [n for n, size in enumerate(leading) if size == heads and n > 0]
        if len(at) != 1:
            return f"its weights are {list(weights.shape)}, and which axis is its {heads} heads cannot be told"
        axis = at[0]
    return weights.movedim(axis, -3).flatten(0, weights.ndim - 4)
