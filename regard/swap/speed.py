"""Speed: how fast a model reads and writes with one attention, and the memory that reading takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from regard import resident
from regard.errors import UserError
from regard.hf.plan import NOTHING, Plan
from regard.swap.records import Speed
from regard.swap.running import running
from regard.swap.texts import batch_like

REPEATS = 3


@torch.no_grad()
def speed(model: nn.Module, plan: Plan, ids: Tensor, new_tokens: int, backend: str = "model") -> Speed:
    """Reading ids [T] at once, medians of REPEATS; then the last `new_tokens` of them one by one with a cache.

    Raises UserError where there are not so many tokens.
    """
    if not 0 < new_tokens < len(ids):
        raise UserError(f"{new_tokens} of {len(ids)} tokens cannot be written one by one")
    batch = batch_like(model, ids)
    inside: AbstractContextManager[Any] = nullcontext() if plan is NOTHING else running(model, plan, backend=backend)
    with inside:
        read = _seconds(batch.device, lambda: model(input_ids=batch, use_cache=False))
        peak = _peak_bytes(batch.device, lambda: model(input_ids=batch, use_cache=False))
        write = _writing(model, batch, new_tokens)
    return Speed(len(ids) / read, new_tokens / write, peak)


def _writing(model: nn.Module, batch: Tensor, new_tokens: int) -> float:
    """Seconds of the last tokens, fed one by one after the others were read."""
    before = batch.shape[1] - new_tokens
    cache = model(input_ids=batch[:, :before], use_cache=True).past_key_values
    _wait(batch.device)
    start = time.perf_counter()
    for at in range(before, batch.shape[1]):
        cache = model(input_ids=batch[:, at : at + 1], past_key_values=cache, use_cache=True).past_key_values
    _wait(batch.device)
    return time.perf_counter() - start


def _seconds(device: torch.device, run: Callable[[], Any]) -> float:
    times = []
    run()
    for _ in range(REPEATS):
        _wait(device)
        start = time.perf_counter()
        run()
        _wait(device)
        times.append(time.perf_counter() - start)
    return median(times)


def _peak_bytes(device: torch.device, run: Callable[[], Any]) -> int | None:
    """The most memory that a run took beyond what there was before."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    try:
        before = resident.begun_bytes()
    except OSError:
        return None
    run()
    return max(resident.peak_so_far() - before, 0)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
