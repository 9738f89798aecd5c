"""Spatial attention over an image's cells, soft and hard, and the glimpse network."""

from __future__ import annotations

from torch import Tensor

from regard.mechanism import Mechanism
from regard.parts.defaults import mechanism_with
from regard.parts.normalisers import Gumbel
from regard.parts.prepare import Project
from regard.parts.scores import Additive
from regard.zoo.card import Card, Sizes

SOFT = "Xu et al. 2015, Show, Attend and Tell, eq. 4-6 and 13 (soft)"
HARD = "Xu et al. 2015, Show, Attend and Tell, eq. 4-9 (hard)"
GLIMPSE = (
    "after Ba et al. 2015, Multiple Object Recognition with Visual Attention, section 3: the features of a "
    "location multiply those of the glimpse (Mnih et al. 2014 add them); the sigmoid is regard's"
)


def spatial_soft(*, w_q: Tensor, w_k: Tensor, v: Tensor) -> Mechanism:
    """ẑ = Σ_i α_i a_i over L image cells (keys and values), α = softmax(vᵀ tanh(W_q h + W_k a))."""
    return mechanism_with("spatial_soft", SOFT, prepare=(Project(w_q, w_k),), score=(Additive(v),))


def spatial_hard(*, w_q: Tensor, w_k: Tensor, v: Tensor, seed: int = 0) -> Mechanism:
    """ẑ = a_j, j drawn from α: one cell by lot. The draw follows from `seed`; no gradient reaches the scores."""
    sample = Gumbel(seed=seed, straight_through=False)
    return mechanism_with("spatial_hard", HARD, prepare=(Project(w_q, w_k),), score=(Additive(v),), normaliser=sample)


def _arguments(s: Sizes) -> dict[str, Tensor]:
    return {
        "w_q": s.normal(s.key_width, 5, seed=1),
        "w_k": s.normal(s.key_width, 5, seed=2),
        "v": s.normal(5, seed=3),
    }


PARAMETERS = {"w_q": "[Dq,M]", "w_k": "[Dk,M]", "v": "[M]"}
CARDS = (
    Card(
        name="spatial_soft",
        family="adaptive",
        line="While a caption is written, each word looks at all cells of the image, some more than others.",
        equation="α = softmax(vᵀ tanh(W_q h + W_k a_i)),  ẑ = Σ_i α_i a_i",
        source=SOFT,
        time="O(n L m), L cells",
        memory="O((n + L) m)",
        stored="O(n L)",
        attends="every cell of the image",
        factory=spatial_soft,
        example=_arguments,
        parameters=PARAMETERS,
    ),
    Card(
        name="spatial_hard",
        family="adaptive",
        line="Each word looks at one cell, drawn by lot; trained by reinforcement.",
        equation="j ~ Multinoulli(α),  ẑ = a_j",
        source=HARD,
        time="O(n L m), L cells",
        memory="O((n + L) m)",
        stored="O(n L)",
        attends="one cell by lot",
        factory=spatial_hard,
        example=_arguments,
        parameters=PARAMETERS,
    ),
    Card(
        name="reinforce",
        family="adaptive",
        line="The estimator that trains hard attention: reward times the gradient of the log probability.",
        equation="∇ ≈ Σ_t (R - b) ∇ log p(j_t | …)",
        source="Williams 1992; Xu et al. 2015, eq. 11-12",
        time="that of spatial_hard",
        memory="that of spatial_hard",
        stored="",
        attends="nothing: it is a loss",
        refused="it is a loss over sampled choices, and a mechanism returns no log-probability; it belongs to nn",
    ),
    Card(
        name="glimpse",
        family="adaptive",
        line="A context gates the input elementwise, then a linear layer: where to look as a filter.",
        equation="o = W (σ(W_c c) ⊙ x)",
        source=GLIMPSE,
        time="O(n d²)",
        memory="O(n d)",
        stored="",
        attends="no keys: it filters features",
        refused="a context weights features, not keys, so there are no pairs and no rows of weights; it belongs to nn",
    ),
)
