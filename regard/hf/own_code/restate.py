"""Exact weights of torch's fused attention, in strips, from the queries, keys and mask that it was given.

W = softmax(Q Kᵀ · scale + mask), excluded keys first; a row that may see nothing is zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Question:
    """What a fused attention was asked: q [B,H,Tq,D], k [B,G,Tk,D], mask bool or additive, broadcastable, or None.

    dropped: the probability with which weights are dropped before they meet the values.
    """

    q: Tensor
    k: Tensor
    mask: Tensor | None
    is_causal: bool
    scale: float
    dropped: float = 0.0

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (self.q.shape[0], self.q.shape[1], self.q.shape[2], self.k.shape[2])

    def rows_of(self, start: int, stop: int) -> Tensor:
        """Exact weights [B, H, stop - start, Tk], float32 or float64."""
        wide = torch.float64 if self.q.dtype == torch.float64 else torch.float32
        groups = self.q.shape[1] // self.k.shape[1]
        q = self.q[:, :, start:stop].to(wide).unflatten(1, (-1, groups))
        scores = (q @ self.k.to(wide).unsqueeze(2).transpose(-1, -2)).flatten(1, 2) * self.scale
        if self.mask is not None:
            mask = self.mask.expand(*self.mask.shape[:-2], self.q.shape[2], self.k.shape[2])[..., start:stop, :]
            scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask.to(wide)
        if self.is_causal:
            rows = torch.arange(start, stop, device=scores.device)[:, None]
            keys = torch.arange(self.k.shape[2], device=scores.device)[None]
            scores = scores.masked_fill(keys > rows, -math.inf)
        nothing = (scores == -math.inf).all(-1, keepdim=True)
        return torch.softmax(scores, -1).masked_fill(nothing, 0.0)


def question(given: Mapping[str, Any]) -> Question | str:
    """The question of one call of a fused operation by its arguments' names, or why it cannot be restated."""
    q, k = given["query"], given["key"]
    if q.ndim == 3:
        q, k = q.unsqueeze(1), k.unsqueeze(1)
    if q.ndim != 4 or k.ndim != 4 or q.shape[1] % k.shape[1]:
        shape = list(given["query"].shape)
        return f"torch's attention was called with queries {shape}, which are not [batch, heads, …]"
    scale = given.get("scale")
    mask = given.get("attn_mask")
    return Question(
        q=q,
        k=k,
        mask=given.get("attn_bias") if mask is None else mask,
        is_causal=bool(given.get("is_causal")),
        scale=1.0 / math.sqrt(q.shape[-1]) if scale is None else float(scale),
        dropped=float(given.get("dropout_p") or 0.0),
    )


def multi_head_question(given: Mapping[str, Any]) -> Question | str:
    """The question of torch's native multi-head attention, whose projections are inside it: (E = H · D)

    Q, K = x_q W_qᵀ + b_q, x_k W_kᵀ + b_k; mask_type 0: [Tq,Tk], 1: keys [B,Tk], 2: [B,H,Tq,Tk]; True excludes.
    """
    width, heads = given["embed_dim"], given["num_head"]
    query, key = given["query"], given["key"]
    if query.ndim != 3 or query.is_nested:
        return "torch's native attention was called with nested sequences"
    weight, bias = given["qkv_weight"], given["qkv_bias"]
    q = torch.nn.functional.linear(query, weight[:width], bias[:width]).unflatten(-1, (heads, -1)).transpose(1, 2)
    k = torch.nn.functional.linear(key, weight[width : 2 * width], bias[width : 2 * width])
    k = k.unflatten(-1, (heads, -1)).transpose(1, 2)
    mask = given.get("mask")
    if mask is not None:
        mask = mask[:, None, None] if given.get("mask_type") == 1 else mask
        mask = ~mask if mask.dtype == torch.bool else mask
    return Question(q=q, k=k, mask=mask, is_causal=False, scale=1.0 / math.sqrt(width // heads))
