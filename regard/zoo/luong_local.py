"""Luong's local attention: a window at the query's own place (local-m), or at a predicted one (local-p)."""

from __future__ import annotations

from torch import Tensor

from regard.mechanism import Mechanism
from regard.parts.adjusts import LocalGaussian
from regard.parts.defaults import mechanism_with
from regard.parts.masks import near
from regard.parts.scores import Dot
from regard.parts.select import PredictCentre
from regard.zoo.card import Card

LOCAL_M = "Luong et al. 2015, Effective Approaches to Attention-based NMT, section 3.2 (local-m)"
LOCAL_P = "Luong et al. 2015, Effective Approaches to Attention-based NMT, eq. 9-10 (local-p)"


def local_m(*, reach: int) -> Mechanism:
    """softmax over the keys within [p_i - D, p_i + D]. reach D: tokens."""
    return mechanism_with("local_m", LOCAL_M, score=(Dot(1.0),), mask=near(reach, reach))


def local_p(*, w: Tensor, v: Tensor, reach: int) -> Mechanism:
    """a = softmax(s) e^{-(p_j - c)² / 2σ²} within [c - D, c + D], c = S sigmoid(vᵀ tanh(W q)), σ = D / 2.

    w [Dq,M], v [M], reach D: tokens. Rows sum to less than one: nothing is renormalised.
    """
    prepare = (PredictCentre(w, v, reach),)
    return mechanism_with("local_p", LOCAL_P, prepare=prepare, score=(Dot(1.0),), adjust=(LocalGaussian(reach / 2),))


CARDS = (
    Card(
        name="local_m",
        family="adaptive",
        line="A window around the query's own place, as if source and target ran in step.",
        equation="a_i = softmax(s_i over |p_j - p_i| <= D)",
        source=LOCAL_M,
        time="O(n D d)",
        memory="O(n d)",
        attends="the 2 D + 1 keys around its own position",
        factory=local_m,
        example=lambda s: {"reach": 1},
    ),
    Card(
        name="local_p",
        family="adaptive",
        line="The query predicts where to look; keys fade around that place like a bell.",
        equation="c_i = S sigmoid(vᵀ tanh(W q_i)),  a_ij = softmax(s)_ij e^{-(p_j - c_i)² / 2σ²},  σ = D / 2",
        source=LOCAL_P,
        time="O(n D d)",
        memory="O(n d)",
        attends="the keys within D of a predicted place",
        factory=local_p,
        example=lambda s: {"w": s.normal(s.key_width, 3, seed=1), "v": s.normal(3, seed=2), "reach": 2},
        parameters={"w": "[Dq,M]", "v": "[M]: from the query to a place"},
    ),
)
