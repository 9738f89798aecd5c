"""The plain masks: everything, padding left out, a prefix, documents, a block list."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from regard.inputs import Inputs
from regard.mechanism import Mechanism
from regard.parts import masks
from regard.parts.defaults import mechanism_with
from regard.zoo.card import Card, Sizes

PADDED = "practice: Vaswani et al. 2017 batch sentences of unequal length (section 5.1) without writing the mask down"
FULL = "Vaswani et al. 2017, Attention Is All You Need, section 3.2.3 (encoder)"
PREFIX = "Raffel et al. 2020, Exploring the Limits of Transfer Learning (T5), section 3.2.1"
DOCUMENT = "Krell et al. 2021, Efficient Sequence Packing without Cross-contamination, section 3.2"
BLOCKS = "Child et al. 2019, Generating Long Sequences with Sparse Transformers, section 5.5"


def full() -> Mechanism:
    """Every token sees every token."""
    return mechanism_with("full", FULL)


def prefix(*, count: int) -> Mechanism:
    """The first `count` tokens are seen by all; after them, causal."""
    return mechanism_with("prefix", PREFIX, mask=masks.prefix(count))


def document(*, ids: Tensor, causal: bool = True) -> Mechanism:
    """Tokens of one document do not see another's. ids: integers [batch or 1, positions]."""
    inside = masks.documents(ids)
    return mechanism_with("document", DOCUMENT, mask=masks.causal() & inside if causal else inside)


def block_sparse(*, layout: Tensor, size: int) -> Mechanism:
    """Blocks of `size` keys by a list. layout: bool [heads or 1, query blocks, key blocks]."""
    return mechanism_with("block_sparse", BLOCKS, mask=masks.Blocks(layout, size))


def _padded(x: Inputs, s: Sizes) -> Inputs:
    valid = torch.ones(x.k.shape[0], x.k.shape[2], dtype=torch.bool)
    valid[:, -max(1, x.k.shape[2] // 3) :] = False
    return x.replace(key_valid=valid)


def _blocks(s: Sizes) -> dict[str, Any]:
    size = 2 if s.keys < 256 else 64
    count = s.queries + s.keys if size == 2 else -(-s.keys // size)
    return {"layout": s.normal(s.heads, count, count) > 0, "size": size}


CARDS = (
    Card(
        name="full",
        family="masks",
        line="No mask: an encoder's tokens all see each other.",
        equation="mask(i, j) = true",
        source=FULL,
        time="O(n² d)",
        memory="O(n d)",
        attends="every token",
        factory=full,
    ),
    Card(
        name="padding",
        family="masks",
        line="Tokens that only fill up a batch are never read: give key_valid with the call.",
        equation="mask(i, j) = valid_j",
        source=PADDED,
        time="O(n² d)",
        memory="O(n d)",
        attends="every token that is not padding",
        factory=full,
        arrange=_padded,
    ),
    Card(
        name="prefix",
        family="masks",
        line="A prefix (the prompt) is read in both directions, the rest is written left to right.",
        equation="mask(i, j) = p_j < P or p_j <= p_i",
        source=PREFIX,
        time="O(n² d)",
        memory="O(n d)",
        attends="the prefix, itself and the past",
        factory=prefix,
        example=lambda s: {"count": 2},
    ),
    Card(
        name="document",
        family="masks",
        line="Several documents packed in one sequence do not see each other.",
        equation="mask(i, j) = doc(p_i) = doc(p_j) and p_j <= p_i",
        source=DOCUMENT,
        time="O(Σ n_doc² d)",
        memory="O(n d)",
        attends="the past of its own document",
        factory=document,
        example=lambda s: {"ids": torch.arange(s.queries + s.keys)[None] // 3},
        parameters={"ids": "[batch or 1,positions]: the document of each position"},
    ),
    Card(
        name="block_sparse",
        family="masks",
        line="Any pattern of blocks, as a list.",
        equation="mask(i, j) = layout[h, ⌊p_i/b⌋, ⌊p_j/b⌋]",
        source=BLOCKS,
        time="O(nnz b² d), nnz blocks",
        memory="O(n d + blocks)",
        attends="the blocks of the list",
        factory=block_sparse,
        example=_blocks,
        parameters={"layout": "bool [H or 1,blocks,blocks]"},
    ),
)
