"""Another attention in a model you already have, and what it costs: comparisons, caches, edits, swaps that stay."""

from __future__ import annotations

from regard.swap.edits import cut, off, pattern, uniform
from regard.swap.retrieval import retrieval

__all__ = ["cut", "off", "pattern", "retrieval", "uniform"]
