"""General (bilinear) attention: a learned matrix between query and key."""

from __future__ import annotations

from torch import Tensor

from regard.mechanism import Mask, Mechanism
from regard.parts.defaults import FULL, mechanism_with
from regard.parts.prepare import Project
from regard.parts.scores import Dot
from regard.zoo.card import Card

SOURCE = "Luong et al. 2015, Effective Approaches to Attention-based NMT, section 3.1 (general)"


def general(*, w: Tensor, mask: Mask = FULL) -> Mechanism:
    """o = softmax(qᵀ W k) v. w: [Dq,Dk], or per head [H,Dq,Dk]; queries and keys may differ in width."""
    return mechanism_with("general", SOURCE, prepare=(Project(w_q=w),), score=(Dot(1.0),), mask=mask)


CARDS = (
    Card(
        name="general",
        family="scores",
        line="A learned matrix says which directions of the query match which of the key.",
        equation="s = qᵀ W k,  a = softmax(s),  o = a v",
        source=SOURCE,
        time="O(n² d)",
        memory="O(n d)",
        attends="every key",
        factory=general,
        example=lambda s: {"w": s.normal(s.key_width, s.key_width)},
        parameters={"w": "[Dq,Dk] or [H,Dq,Dk]: from the query's space to the key's"},
    ),
)
