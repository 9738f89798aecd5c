"""Reformer: attention among tokens that hash alike."""

from __future__ import annotations

from torch import Tensor

from regard.inputs import Inputs
from regard.mechanism import Mechanism
from regard.parts.defaults import mechanism_with
from regard.parts.masks import Full, causal
from regard.parts.relative import SelfPenalty
from regard.parts.scores import Dot
from regard.parts.select import SameBucket
from regard.zoo.card import Card, Sizes

SOURCE = "Kitaev et al. 2020, Reformer: The Efficient Transformer, section 2, eq. 2-6 and appendix A"


def reformer(*, rotations: Tensor, see_future: bool = False) -> Mechanism:
    """softmax over the tokens that share a bucket in any round; itself only if nothing else. rotations [rounds,D,b/2].

    Queries and keys are shared: give the same tensor as q and k. Multi-round attention as in eq. 17 counts a pair
    that meets in several rounds once, which is a softmax over the union of its buckets.
    """
    mask = Full() if see_future else causal()
    return mechanism_with(
        "reformer", SOURCE, prepare=(SameBucket(rotations),), score=(Dot(), SelfPenalty(1e5)), mask=mask
    )


def _shared(x: Inputs, s: Sizes) -> Inputs:
    if x.q.shape[1] != x.k.shape[1] or x.q.shape[2] != x.k.shape[2]:
        return x
    return x.replace(k=x.q)


CARDS = (
    Card(
        name="reformer",
        family="masks",
        line="Random rotations sort tokens into buckets; only those in the same bucket meet.",
        equation="mask(i, j) = ∃r: h_r(q_i) = h_r(k_j),  h_r(x) = argmax [x R_r ; -x R_r],  k = q / ‖q‖",
        source=SOURCE,
        time="as published O(n log n d) by sorting buckets; computed here on masked strips, O(n² d)",
        memory="O(n (d + bucket size)): buckets have to grow in number as n",
        attends="tokens whose query hashes alike",
        factory=reformer,
        example=lambda s: {"rotations": s.normal(2, s.key_width, max(2, s.keys // 128))},
        arrange=_shared,
        parameters={"rotations": "[rounds,D,buckets/2]: random, not learned"},
    ),
)
