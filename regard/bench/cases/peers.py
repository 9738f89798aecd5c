"""What regard's backends are measured against: the eager form, compiled FlexAttention, and reading the bytes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from regard.bench.machine import available_bytes
from regard.run.native.extension import extension

EAGER_TOKENS = 4096


def eager_fits(heads: int, tokens: int) -> bool:
    """Whether scores, weights and a copy of each fit into a third of the free memory, at a sane length."""
    return tokens <= EAGER_TOKENS and 4 * 4 * heads * tokens * tokens < available_bytes() / 3


def eager(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention as it is written down: scores, mask, softmax, product. q [B,H,T,D], k, v [B,G,T,D]."""
    share = q.shape[1] // k.shape[1]
    keys, values = (t if share == 1 else t.repeat_interleave(share, 1) for t in (k, v))
    scores = (q @ keys.transpose(-1, -2)) * q.shape[-1] ** -0.5
    future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    return scores.masked_fill(future, -torch.inf).softmax(-1) @ values


def flex(predicate: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor) -> Callable[[], Any]:
    """FlexAttention, compiled for these shapes when first called; predicate(batch, head, query, key) is its mask."""

    @cache
    def made() -> Callable[[], Any]:
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention

        block = create_block_mask(predicate, None, None, q.shape[2], k.shape[2], device="cpu")
        compiled = torch.compile(flex_attention, dynamic=False)
        return partial(compiled, q, k, v, block_mask=block, enable_gqa=q.shape[1] != k.shape[1])

    return lambda: made()()


def read(floats: Tensor) -> float:
    """The sum of contiguous float32 numbers: the time that reading them takes, on all threads."""
    return float(extension().read_floats(floats.data_ptr(), floats.numel(), torch.get_num_threads()))
