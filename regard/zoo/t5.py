"""T5's relative position bias: one learned number per bucket of distances and head."""

from __future__ import annotations

from torch import Tensor

from regard.mechanism import Mask, Mechanism
from regard.parts.defaults import FULL, mechanism_with
from regard.parts.relative import T5Bias
from regard.parts.scores import Dot
from regard.zoo.card import Card

SOURCE = "Raffel et al. 2020, Exploring the Limits of Transfer Learning (T5), section 2.1"


def t5(*, table: Tensor, max_distance: int = 128, bidirectional: bool = True, mask: Mask = FULL) -> Mechanism:
    """s_ij = q·k + T[bucket(p_j - p_i), h], unscaled as in T5. table [buckets, heads]."""
    bias = T5Bias(table, max_distance, bidirectional)
    return mechanism_with("t5", SOURCE, score=(Dot(1.0), bias), mask=mask)


CARDS = (
    Card(
        name="t5",
        family="positions",
        line="A learned bias per distance: exact when near, in logarithmic buckets when far.",
        equation="s_ij = q_i·k_j + T[bucket(p_j - p_i), h]",
        source=SOURCE,
        time="O(n² d)",
        memory="O(n d)",
        attends="every key",
        factory=t5,
        example=lambda s: {"table": s.normal(8, s.heads), "max_distance": 6},
        parameters={"table": "[buckets,H]: the bias of each bucket"},
    ),
)
