"""Watching runs aside: without gradients and autocast, on tensors that may be changed later."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor


def aside(like: Tensor) -> AbstractContextManager[Any]:
    """Where watching runs: no gradients, no autocast, and tensors that may be changed later."""
    plain = not torch.is_inference_mode_enabled() and not torch.is_autocast_enabled(like.device.type)
    return torch.no_grad() if plain else _aside(like)


@contextmanager
def _aside(like: Tensor) -> Iterator[None]:
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(like.device.type, enabled=False):
        yield
