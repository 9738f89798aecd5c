"""What watching costs while a model writes token by token: does a late token cost more watched than unwatched?

The model is a small Llama with random weights. Two of it write the same tokens in turn, one of them watched, so that
what else the machine does falls on both.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from statistics import median
from typing import Any

import torch

from regard.bench.machine import describe

VOCABULARY = 1000


def run(tokens: int, window: int, report: Callable[[str], None]) -> dict[str, Any]:
    """Milliseconds a token, unwatched and watched, over the first and the last `window` tokens; how much memory the
    statistics took at a half and at the end."""
    report(f"{tokens} tokens one by one, twice")
    with torch.no_grad(), ExitStack() as watched:
        writers = {"unwatched": _Writer(), "watched": _Writer()}
        trace = watched.enter_context(writers["watched"].watch())
        half = 0
        for token in range(tokens):
            for writer in writers.values():
                writer.write(token % VOCABULARY)
            if token + 1 == tokens // 2:
                half = _held(trace)
        whole = _held(trace)
    return {
        "machine": describe(),
        "tokens": tokens,
        "window": window,
        "milliseconds": {name: _ends(writer.seconds, window) for name, writer in writers.items()},
        "bytes": {"half": half, "whole": whole},
    }


def table(result: dict[str, Any]) -> list[list[str]]:
    """Rows of a table: a token's milliseconds early and late, and how much more a late one takes."""
    window = result["window"]
    rows = [["", f"first {window}, ms", f"last {window}, ms", "more, ms"]]
    more = {name: last - first for name, (first, last) in result["milliseconds"].items()}
    for name, (first, last) in result["milliseconds"].items():
        rows.append([name, f"{first:.2f}", f"{last:.2f}", f"{more[name]:.2f}"])
    rows.append(["watched against unwatched", "", "", f"{more['watched'] / more['unwatched']:.2f} ×"])
    half, whole = result["bytes"]["half"], result["bytes"]["whole"]
    rows.append(["held by statistics, MB", f"{half / 1e6:.1f} at half", f"{whole / 1e6:.1f}", f"{whole / half:.2f} ×"])
    return rows


class _Writer:
    """A model that writes with a cache; seconds: of each token."""

    def __init__(self) -> None:
        from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=576,
            intermediate_size=1536,
            num_hidden_layers=2,
            num_attention_heads=9,
            num_key_value_heads=3,
            max_position_embeddings=1 << 16,
        )
        self.model = LlamaForCausalLM(config).eval()
        self.cache = DynamicCache(config=config)
        self.seconds: list[float] = []

    def watch(self) -> Any:
        """Watch every standard statistic while a block runs."""
        from regard.hf.attach import attach

        return attach(self.model)

    def write(self, token: int) -> None:
        """One token more."""
        begin = time.perf_counter()
        self.model(torch.tensor([[token]]), past_key_values=self.cache, use_cache=True)
        self.seconds.append(time.perf_counter() - begin)


def _ends(seconds: Sequence[float], window: int) -> tuple[float, float]:
    """The median milliseconds of the first and of the last tokens."""
    return median(seconds[:window]) * 1e3, median(seconds[-window:]) * 1e3


def _held(trace: Any) -> int:
    """Bytes of the tensors that a trace's results are."""
    layers = trace.layers
    return sum(
        t.numel() * t.element_size() for layer in layers for part in layer.results.values() for t in part.values()
    )
