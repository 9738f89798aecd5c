"""Memory and time of writing a token: our full pages, budgets by policies, transformers' own cache."""

from __future__ import annotations

import gc
import time
from statistics import median
from typing import Any

import torch
import transformers as tf
from transformers.cache_utils import DynamicCache

import regard
from regard.mechanism import Mechanism
from regard.parts.masks import Full
from regard.parts.mixes import WeightedSum
from regard.parts.normalisers import Softmax
from regard.parts.scores import Dot
from regard.swap.cache.cache import PolicyCache
from regard.swap.cache.pages import HeadPages

HEADS, WIDTH = 12, 64
OWN = Mechanism("dot", "Vaswani 2017", (Dot(WIDTH**-0.5),), Full(), Softmax(), mix=WeightedSum())


def gpt2(positions: int, layers: int = 12) -> Any:
    """GPT-2 small's shape with random weights."""
    torch.manual_seed(0)
    return tf.GPT2LMHeadModel(tf.GPT2Config(n_positions=positions, n_layer=layers)).eval()


@torch.inference_mode()
def cache_rows(context: int, budget: float, repeats: int) -> list[dict[str, Any]]:
    """One token written on a filled cache: our full pages, the budget by policies, transformers' own cache."""
    model = gpt2(context + 64)
    rows: list[dict[str, Any]] = []
    shares = {"full pages": 1.0, f"snapkv({budget:g})": budget, f"ada({budget:g})": budget}
    for name, share in shares.items():
        cache = filled(model, "snapkv(1.0)" if share == 1.0 else name, context, share, name.startswith("ada"))
        rows.append({"cache": name, "bytes": cache.nbytes, "seconds": _writing(model, cache, repeats)})
        del cache
        gc.collect()
    plain = DynamicCache(config=model.config)
    for layer in range(model.config.n_layer):
        plain.update(torch.randn(1, HEADS, context, WIDTH), torch.randn(1, HEADS, context, WIDTH), layer)
    size = model.config.n_layer * 2 * HEADS * context * WIDTH * 4
    rows.append({"cache": "transformers", "bytes": size, "seconds": _writing(model, plain, max(repeats // 2, 2))})
    weights = sum(p.numel() * p.element_size() for p in model.parameters()) - model.transformer.wpe.weight.numel() * 4
    full = rows[0]
    for row in rows:
        row["memory"] = row["bytes"] / full["bytes"]
        row["times faster"] = full["seconds"] / row["seconds"]
        row["bytes allow"] = (weights + full["bytes"]) / (weights + row["bytes"])
    return rows


def filled(model: Any, policy: str, context: int, share: float, uneven: bool) -> PolicyCache:
    """A cache as a prompt of so many tokens leaves it, with random keys and values; uneven: budgets by head."""
    cache = regard.cache(model, policy)
    for layer in cache.managed:
        lengths = torch.full((HEADS,), int(context * share))
        if uneven:
            weight = torch.rand(HEADS, generator=torch.Generator().manual_seed(1)) + 0.2
            lengths = (weight / weight.sum() * HEADS * context * share).long()
        pages = HeadPages(HEADS, WIDTH, WIDTH, torch.float32, torch.device("cpu"))
        pages.claim(lengths)
        pages.keys.normal_()
        pages.values.normal_()
        layer.pages, layer.batch, layer.seen, layer.mechanism = pages, 1, context, OWN
        layer.lazy_initialization(pages.keys, pages.values)
    return cache


def _writing(model: Any, cache: Any, repeats: int) -> float:
    """Seconds of one token, the median."""
    token, seconds = torch.tensor([[5]]), []
    model(token, past_key_values=cache, use_cache=True)
    for _ in range(repeats):
        start = time.perf_counter()
        model(token, past_key_values=cache, use_cache=True)
        seconds.append(time.perf_counter() - start)
    return median(seconds)
