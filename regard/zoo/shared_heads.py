"""Fewer key-value heads than query heads: multi-query and grouped-query attention."""

from __future__ import annotations

from regard.mechanism import Mask, Mechanism
from regard.parts.defaults import FULL, mechanism_with
from regard.parts.prepare import KeyHeads
from regard.zoo.card import Card

MULTI_QUERY = "Shazeer 2019, Fast Transformer Decoding: One Write-Head is All You Need, section 3"
GROUPED = "Ainslie et al. 2023, GQA: Training Generalized Multi-Query Transformer Models, section 2.2"


def multi_query(*, mask: Mask = FULL) -> Mechanism:
    """All query heads share one key-value head: k, v are [B,1,T,D]."""
    return mechanism_with("multi_query", MULTI_QUERY, prepare=(KeyHeads(1),), mask=mask)


def grouped_query(*, groups: int, mask: Mask = FULL) -> Mechanism:
    """Query head h reads key-value head h // (H / G): k, v are [B,G,T,D]."""
    return mechanism_with("grouped_query", GROUPED, prepare=(KeyHeads(groups),), mask=mask)


CARDS = (
    Card(
        name="multi_query",
        family="kinds",
        line="All query heads share one key and value: the smallest cache that is still multi-head.",
        equation="o_h = softmax(q_h kᵀ / √Dk) v",
        source=MULTI_QUERY,
        time="O(n² d)",
        memory="O(n d), cache 1/H of multi-head",
        attends="every token",
        factory=multi_query,
        arrange=lambda x, s: x.replace(k=x.k[:, :1], v=None if x.v is None else x.v[:, :1]),
    ),
    Card(
        name="grouped_query",
        family="kinds",
        line="Groups of query heads share a key and value: between multi-head and multi-query.",
        equation="o_h = softmax(q_h k_gᵀ / √Dk) v_g,  g = ⌊h G / H⌋",
        source=GROUPED,
        time="O(n² d)",
        memory="O(n d), cache G/H of multi-head",
        attends="every token",
        factory=grouped_query,
        example=lambda s: {"groups": s.groups},
    ),
)
