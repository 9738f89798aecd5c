"""Another attention in a model you already have, and what it costs: comparisons, caches, edits, swaps that stay.

The package is itself the function that changes a model for good: `regard.swap(model, "window(256) | sinks(4)")`.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from regard.swap.edits import cut, off, pattern, uniform
from regard.swap.retrieval import retrieval
from regard.swap.staying import cache_of, released, swap

__all__ = ["cache_of", "cut", "off", "pattern", "released", "retrieval", "uniform"]


class _Callable(ModuleType):
    """A package that is called: regard.swap(model, …)."""

    def __call__(self, model: Any, mechanism: Any, **more: Any) -> Any:
        return swap(model, mechanism, **more)


sys.modules[__name__].__class__ = _Callable
