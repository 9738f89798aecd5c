"""Concat attention: one matrix over query and key side by side."""

from __future__ import annotations

from torch import Tensor

from regard.errors import UserError
from regard.mechanism import Mask, Mechanism
from regard.parts.defaults import FULL, mechanism_with
from regard.parts.prepare import Project
from regard.parts.scores import Additive
from regard.zoo.card import Card

SOURCE = "Luong et al. 2015, Effective Approaches to Attention-based NMT, section 3.1 (concat)"


def concat(*, w: Tensor, v: Tensor, query_width: int, mask: Mask = FULL) -> Mechanism:
    """o = softmax(vᵀ tanh(W [q ; k])) v. w: [Dq + Dk,M], whose first query_width rows meet the query; v [M]."""
    if not 0 < query_width < w.shape[-2]:
        raise UserError(f"query_width={query_width} must leave rows of w {list(w.shape)} for query and key")
    parts = (Project(w[..., :query_width, :], w[..., query_width:, :]),)
    return mechanism_with("concat", SOURCE, prepare=parts, score=(Additive(v),), mask=mask)


CARDS = (
    Card(
        name="concat",
        family="scores",
        line="Query and key side by side through one layer: the additive score with its matrices joined.",
        equation="s = vᵀ tanh(W [q ; k]),  a = softmax(s)",
        source=SOURCE,
        time="O(n² m), m the hidden width",
        memory="O(n m); a strip holds m numbers per pair",
        attends="every key",
        factory=concat,
        example=lambda s: {
            "w": s.normal(2 * s.key_width, 5, seed=1),
            "v": s.normal(5, seed=2),
            "query_width": s.key_width,
        },
        parameters={"w": "[Dq + Dk,M]", "v": "[M]"},
    ),
)
