"""Longformer and BigBird: windows, global tokens, random blocks."""

from __future__ import annotations

from regard.errors import UserError
from regard.mechanism import Mechanism
from regard.parts import masks
from regard.parts.defaults import mechanism_with
from regard.zoo.card import Card, Sizes

LONGFORMER = "Beltagy et al. 2020, Longformer, section 3.1"
BIGBIRD = "Zaheer et al. 2020, Big Bird: Transformers for Longer Sequences, section 2"


def longformer(*, reach: int, global_tokens: int = 1) -> Mechanism:
    """A band of `reach` tokens to either side; the first `global_tokens` see all and are seen by all."""
    mask = masks.near(reach, reach) | masks.global_tokens(global_tokens)
    return mechanism_with("longformer", LONGFORMER, mask=mask)


def bigbird(
    *, size: int, length: int, window: int = 3, count: int = 3, global_blocks: int = 1, seed: int = 0
) -> Mechanism:
    """Blocks of `size` tokens: `window` (odd) around the query's own, `count` random ones of `length` tokens, and
    `global_blocks` at the start that see all and are seen by all."""
    if window < 1 or window % 2 == 0:
        raise UserError(f"bigbird(window={window}): an odd number of blocks, the query's own in the middle")
    mask = (
        masks.NearBlocks(size, window // 2)
        | masks.global_tokens(global_blocks * size)
        | masks.random_blocks(size, count, length, seed)
    )
    return mechanism_with("bigbird", BIGBIRD, mask=mask)


def _bigbird(s: Sizes) -> dict[str, int]:
    size = 2 if s.keys < 256 else 64
    return {"size": size, "length": max(s.keys, s.queries), "window": 1, "count": 1, "global_blocks": 1}


CARDS = (
    Card(
        name="longformer",
        family="masks",
        line="A sliding band for all tokens and a few global ones that tie the text together.",
        equation="mask(i, j) = |p_i - p_j| <= w or p_i < g or p_j < g",
        source=LONGFORMER,
        time="O(n (w + g) d)",
        memory="O(n d)",
        attends="its neighbourhood and the global tokens",
        factory=longformer,
        example=lambda s: {"reach": 1, "global_tokens": 1},
    ),
    Card(
        name="bigbird",
        family="masks",
        line="Window, global and random blocks: sparse, and still any two tokens are few steps apart.",
        equation="mask = band of blocks or global blocks or r random blocks per block of queries",
        source=BIGBIRD,
        time="O(n b (w + g + r) d), b the block",
        memory="O(n d)",
        attends="near blocks, the first blocks and random ones",
        factory=bigbird,
        example=_bigbird,
    ),
)
