"""What a window saves in a whole model's forward."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import torch

from regard import resident
from regard.bench.swap.writing import gpt2
from regard.hf.attach import attach

FORM = "window(1024) | sinks(4)"


@torch.inference_mode()
def window_rows(tokens: int, layers: int, repeats: int) -> list[dict[str, Any]]:
    """One forward of GPT-2 small's shape: plain sdpa, and a window with sinks in its place, in turns."""
    model, ids = gpt2(tokens, layers).transformer, torch.randint(0, 50000, (1, tokens))
    seconds: dict[str, list[float]] = {"sdpa": [], FORM: []}
    peaks: dict[str, int] = {}

    def once(name: str) -> float:
        before = resident.begun_bytes()
        start = time.perf_counter()
        if name == "sdpa":
            model(ids, use_cache=False)
        else:
            with attach(model, watch=(), mechanism=FORM):
                model(ids, use_cache=False)
        took = time.perf_counter() - start
        peaks[name] = resident.peak_so_far() - before
        return took

    for _ in range(max(min(repeats, 3), 1)):
        for name, times in seconds.items():
            times.append(once(name))
    base = median(seconds["sdpa"])
    return [
        {"attention": name, "seconds": median(t), "of sdpa": median(t) / base, "peak bytes": peaks[name]}
        for name, t in seconds.items()
    ]
