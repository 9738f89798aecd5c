"""One decoding step by transformers' own continuous batching: its cache, its mask and its sdpa function, as they are.

The newest keys and values are written to the paged cache, all of it that the batch reads is gathered into one row of
tokens, key-value heads are repeated, and one SDPA call under a mask of queries × all tokens keeps sequences apart.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

PAGE_SIZE = 16


def step(q: Tensor, k: Tensor, v: Tensor, order: Tensor) -> Callable[[], Tensor]:
    """What computes the step: output [S,H,D] of q [S,H,D] on k, v [S,G,T,D]. order int [S, T / 16]: pages in the cache.

    The mask belongs to the batch, not to a layer, so it is built here and not in the step.
    """
    from transformers.generation.continuous_batching.utils import build_attention_mask
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    sequences, heads, width = q.shape
    groups, tokens = k.shape[1], k.shape[2]
    cache = _cache(sequences * tokens, heads, groups, width)
    # a page of the cache is 16 tokens of keys, then 16 of values
    slots = (order.long()[:, :, None] * 2 * PAGE_SIZE + torch.arange(PAGE_SIZE)).view(sequences, tokens)
    keys, values = (t.transpose(0, 1).reshape(1, groups, sequences * tokens, width) for t in (k, v))
    cache.update(keys, values, 0, _indices(read=slots.new_zeros(0), write=slots.flatten()))
    mask = torch.full((1, 1, sequences, sequences * tokens), torch.finfo(q.dtype).min)
    upto = torch.arange(sequences + 1)
    build_attention_mask(mask, upto.tolist(), (upto * tokens).tolist())
    module: Any = SimpleNamespace(layer_idx=0, num_key_value_groups=heads // groups, is_causal=True)
    new_key, new_value = (t[:, :, -1].transpose(0, 1)[None].contiguous() for t in (k, v))
    query = q.transpose(0, 1)[None]

    def run() -> Tensor:
        given = _indices(read=slots.flatten(), write=slots[:, -1])
        out, _ = sdpa_attention_forward(
            module, query, new_key, new_value, mask, scaling=width**-0.5, cache=cache, **given
        )
        return out[0]

    return run


def _cache(tokens: int, heads: int, groups: int, width: int) -> Any:
    from transformers import ContinuousBatchingConfig, LlamaConfig
    from transformers.generation.continuous_batching.cache import PagedAttentionCache
    from transformers.generation.continuous_batching.distributed import DistributedHelper

    config = LlamaConfig(
        num_hidden_layers=1,
        num_attention_heads=heads,
        num_key_value_heads=groups,
        head_dim=width,
        hidden_size=heads * width,
        vocab_size=16,
    )
    sizes = ContinuousBatchingConfig(
        page_size=PAGE_SIZE,
        num_blocks=tokens // PAGE_SIZE,
        max_batch_tokens=256,
        max_memory_percent=0.9,
        max_blocks_per_request=0,
    )
    return PagedAttentionCache(config, sizes, "cpu", DistributedHelper(None, None), torch.float32)


def _indices(read: Tensor, write: Tensor) -> dict[str, Any]:
    """The keywords by which continuous batching says which slots of its cache a call reads and writes."""
    unused = {"cu_seq_lens_k": {"full_attention": torch.zeros(1)}, "max_length_k": {"full_attention": 0}}
    return {"read_index": [read], "write_index": [write], **unused}
