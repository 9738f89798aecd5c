"""Transformer-XL's relative attention: content and position scored apart."""

from __future__ import annotations

from torch import Tensor

from regard.mechanism import Mask, Mechanism
from regard.parts.defaults import mechanism_with
from regard.parts.masks import causal
from regard.parts.relative import TransformerXL
from regard.zoo.card import Card

SOURCE = "Dai et al. 2019, Transformer-XL, section 3.3"
CAUSAL = causal()


def transformer_xl(*, u: Tensor, v: Tensor, w_r: Tensor, mask: Mask = CAUSAL) -> Mechanism:
    """s_ij = [(q_i + u)·k_j + (q_i + v)·W_R R_{i-j}] / √Dk. u, v [H,Dk]; w_r [H,M,Dk]. A longer past: more keys."""
    return mechanism_with("transformer_xl", SOURCE, score=(TransformerXL(u, v, w_r),), mask=mask)


CARDS = (
    Card(
        name="transformer_xl",
        family="scores",
        line="Distance is a sinusoid with its own projection; two learned biases score content and distance alone.",
        equation="s_ij = [(q_i + u)·k_j + (q_i + v)·W_R R_{i-j}] / √Dk,  causal",
        source=SOURCE,
        time="O(n² d)",
        memory="O(n d)",
        attends="the past, the cached segments before it included",
        factory=transformer_xl,
        example=lambda s: {
            "u": s.normal(s.heads, s.key_width, seed=1),
            "v": s.normal(s.heads, s.key_width, seed=2),
            "w_r": s.normal(s.heads, 6, s.key_width, seed=3),
        },
        parameters={"u": "[H,Dk]: content bias", "v": "[H,Dk]: position bias", "w_r": "[H,M,Dk]: projects distances"},
    ),
)
