"""Attention computed densely, as an implementation of transformers' own: what swaps and edits are held to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import AttentionInterface

NAME = "dense_for_tests"
Weights = Callable[[Tensor, Tensor, Any], Tensor]
"""(scores [B,H,Tq,Tk] float64, allowed bool, module) -> weights of the same shape."""


def softmax(scores: Tensor, allowed: Tensor) -> Tensor:
    """Rows over what is allowed; a row of nothing is zeros."""
    return scores.masked_fill(~allowed, -torch.inf).softmax(-1).nan_to_num(0.0)


@contextmanager
def dense(model: Any, weights: Weights) -> Iterator[None]:
    """The model with every attention layer computed by `weights`, in float64, from full matrices."""

    def attend(module: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, **keywords: Any) -> Any:
        times = q.shape[1] // k.shape[1]
        k, v = (t.repeat_interleave(times, 1).double() for t in (k, v))
        scaling = keywords.get("scaling")
        scores = q.double() @ k.mT * (q.shape[-1] ** -0.5 if scaling is None else scaling)
        num_queries, num_keys = scores.shape[2:]
        if mask is None:
            allowed = torch.ones(num_queries, num_keys, dtype=torch.bool).tril(num_keys - num_queries)[None, None]
        else:
            allowed = mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
        made = weights(scores, allowed.expand(scores.shape), module)
        return (made @ v).to(q.dtype).transpose(1, 2).contiguous(), None

    before = model.config._attn_implementation
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    try:
        model.set_attn_implementation(NAME)
        yield
    finally:
        model.set_attn_implementation(before)
        del AttentionInterface._global_mapping[NAME], AttentionMaskInterface._global_mapping[NAME]


def stepwise(model: Any, ids: Tensor, first: int = 5) -> Tensor:
    """Logits of a sequence of which `first` tokens are read at once and the others one by one, with a cache."""
    out = model(input_ids=ids[:, :first], use_cache=True)
    logits = [out.logits]
    for at in range(first, ids.shape[1]):
        out = model(input_ids=ids[:, at : at + 1], past_key_values=out.past_key_values, use_cache=True)
        logits.append(out.logits)
    return torch.cat(logits, 1)
