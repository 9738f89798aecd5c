"""Masks: which positions may attend which. Combine them with & (and), | (or), ~ (not).

A mask is a predicate on logical positions; most also state their ranges at once, for sorted key positions, and those
that do not are run-length encoded exactly.
"""

from __future__ import annotations

from torch import Tensor

from regard.errors import UserError
from regard.parts.bands import (
    Band,
    Chunk,
    Dilated,
    Documents,
    Every,
    FirstKeys,
    GlobalTokens,
    Heads,
    Prefix,
    Summary,
)
from regard.parts.blocks import Blocks, NearBlocks, RandomBlocks
from regard.parts.joined import And, Combinable, Full, Not, Or
from regard.parts.trees import Tree

__all__ = [
    "And",
    "Band",
    "Blocks",
    "Chunk",
    "Combinable",
    "Dilated",
    "Documents",
    "Every",
    "FirstKeys",
    "Full",
    "GlobalTokens",
    "Heads",
    "NearBlocks",
    "Not",
    "Or",
    "Prefix",
    "RandomBlocks",
    "Summary",
    "Tree",
    "causal",
    "chunk",
    "dilated",
    "documents",
    "every",
    "full",
    "global_keys",
    "global_tokens",
    "heads",
    "near",
    "near_blocks",
    "prefix",
    "random_blocks",
    "sinks",
    "summary",
    "tree",
    "window",
]


def full() -> Full:
    """Every query sees every key."""
    return Full()


def causal() -> Band:
    """p_j <= p_i: the past and the present."""
    return Band(before=None, after=0)


def window(width: int) -> Band:
    """0 <= p_i - p_j < width: the last `width` tokens, itself included (Mistral 7B, section 2)."""
    if width < 1:
        raise UserError(f"window({width}): a window holds at least 1 token; use causal() for no limit")
    return Band(before=width - 1, after=0)


def near(before: int | None, after: int | None) -> Band:
    """-after <= p_i - p_j <= before, inclusive: a band around each query; None: no limit on that side."""
    return Band(before, after)


def sinks(count: int) -> FirstKeys:
    """The first `count` keys, never the future (StreamingLLM: Xiao 2024, section 3.2)."""
    return FirstKeys(count, causal=True)


def global_keys(count: int) -> FirstKeys:
    """The first `count` keys, seen by all queries."""
    return FirstKeys(count, causal=False)


def prefix(count: int) -> Prefix:
    """Causal, and the first `count` keys are seen by all."""
    return Prefix(count)


def chunk(size: int) -> Chunk:
    """Attention inside chunks of `size` positions."""
    return Chunk(size)


def global_tokens(count: int) -> GlobalTokens:
    """The first `count` tokens see all and are seen by all."""
    return GlobalTokens(count)


def every(step: int) -> Every:
    """Every step-th key, counted from the query."""
    return Every(step)


def dilated(width: int, step: int) -> Dilated:
    """`width` keys to either side, `step` apart."""
    return Dilated(width, step)


def near_blocks(size: int, reach: int) -> NearBlocks:
    """Blocks of `size` positions, `reach` of them to either side of the query's own."""
    return NearBlocks(size, reach)


def summary(size: int, count: int) -> Summary:
    """The last `count` keys of each chunk of `size`."""
    return Summary(size, count)


def random_blocks(size: int, count: int, length: int, seed: int = 0) -> RandomBlocks:
    """Each block of queries sees `count` random blocks of keys."""
    return RandomBlocks(size, count, length, seed)


def heads(begin: int, end: int) -> Heads:
    """Only the heads begin … end - 1."""
    return Heads(begin, end)


def documents(ids: Tensor) -> Documents:
    """Packed sequences do not see each other; ids by position."""
    return Documents(ids)


def tree(parents: Tensor) -> Tree:
    """Each token sees itself and its ancestors; parents by position, -1 for a root."""
    return Tree(parents)
