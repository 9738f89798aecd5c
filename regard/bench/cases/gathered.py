"""One decoding step by transformers' own continuous batching: its cache, its mask and its sdpa function, as they are.

The newest keys and values are written to the paged cache, all of it that the batch reads is gathered into one row of
tokens, key-value heads are repeated, and one SDPA call under a mask of queries × all tokens keeps sequences apart.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from regard.bench.cases import pages

PAGE_SIZE = 16


def step(q: Tensor, keys: list[Tensor], values: list[Tensor], scatter: torch.Generator) -> Callable[[], Tensor]:
    """What computes the step: output [S,H,D] of q [S,H,D] on keys and values [G,T,D] of each sequence.

    The mask belongs to the batch, not to a layer, so it is built here and not in the step.
    """
    from transformers.generation.continuous_batching.utils import build_attention_mask
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    sequences, heads, width = q.shape
    lengths = [own.shape[1] for own in keys]
    groups, total = keys[0].shape[0], sum(lengths)
    table = pages.table(lengths, PAGE_SIZE, scatter)
    cache = _cache(sum(-(-length // PAGE_SIZE) for length in lengths), heads, groups, width)
    # a page of the cache is 16 tokens of keys, then 16 of values
    each = [slot + slot // PAGE_SIZE * PAGE_SIZE for slot in pages.slots(table, lengths, PAGE_SIZE)]
    slots, last = torch.cat(each), torch.stack([own[-1] for own in each])
    cache.update(torch.cat(keys, 1)[None], torch.cat(values, 1)[None], 0, _indices(slots[:0], slots))
    mask = torch.full((1, 1, sequences, total), torch.finfo(q.dtype).min)
    build_attention_mask(mask, list(range(sequences + 1)), [0, *accumulate(lengths)])
    module: Any = SimpleNamespace(layer_idx=0, num_key_value_groups=heads // groups, is_causal=True)
    new_key, new_value = (torch.stack([own[:, -1] for own in all_], 1)[None] for all_ in (keys, values))
    query = q.transpose(0, 1)[None]

    def run() -> Tensor:
        given = _indices(slots, last)
        out, _ = sdpa_attention_forward(
            module, query, new_key, new_value, mask, scaling=width**-0.5, cache=cache, **given
        )
        return out[0]

    return run


def _cache(num_pages: int, heads: int, groups: int, width: int) -> Any:
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
        num_blocks=num_pages,
        max_batch_tokens=256,
        max_memory_percent=0.9,
        max_blocks_per_request=0,
    )
    return PagedAttentionCache(config, sizes, "cpu", DistributedHelper(None, None), torch.float32)


def _indices(read: Tensor, write: Tensor) -> dict[str, Any]:
    """The keywords by which continuous batching says which slots of its cache a call reads and writes."""
    unused = {"cu_seq_lens_k": {"full_attention": torch.zeros(1)}, "max_length_k": {"full_attention": 0}}
    return {"read_index": [read], "write_index": [write], **unused}
