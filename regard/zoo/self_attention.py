"""Self-attention as it is taught: without weights, with weights, causal, and with several heads."""

from __future__ import annotations

from torch import Tensor

from regard.mechanism import Mask, Mechanism
from regard.parts.defaults import FULL, mechanism_with
from regard.parts.masks import causal as causal_mask
from regard.parts.prepare import KeyHeads, Project
from regard.parts.scores import Dot
from regard.zoo.card import Card

SIMPLIFIED = "Raschka 2024, Build a Large Language Model (From Scratch), section 3.3"
TRAINABLE = "Vaswani et al. 2017, Attention Is All You Need, section 3.2.1"
CAUSAL = "Vaswani et al. 2017, Attention Is All You Need, section 3.2.3"
MULTI_HEAD = "Vaswani et al. 2017, Attention Is All You Need, section 3.2.2"
CROSS = "Vaswani et al. 2017, Attention Is All You Need, section 3.2.3 (encoder-decoder attention)"


def simplified() -> Mechanism:
    """a = softmax(x xᵀ), o = a x: give the tokens themselves as q, k and v. Nothing is learned."""
    return mechanism_with("simplified", SIMPLIFIED, score=(Dot(1.0),))


def trainable(*, w_q: Tensor, w_k: Tensor, w_v: Tensor, mask: Mask = FULL) -> Mechanism:
    """q = x W_q, k = x W_k, v = x W_v, then scaled dot-product attention. Weights [D,M], or per head [H,D,M]."""
    return mechanism_with("trainable", TRAINABLE, prepare=(Project(w_q, w_k, w_v),), mask=mask)


def causal() -> Mechanism:
    """Each token sees itself and what came before: p_j <= p_i, whatever cache lies in front."""
    return mechanism_with("causal", CAUSAL, mask=causal_mask())


def multi_head(*, heads: int, mask: Mask = FULL) -> Mechanism:
    """`heads` attentions side by side, each with queries, keys and values of its own."""
    return mechanism_with("multi_head", MULTI_HEAD, prepare=(KeyHeads(heads, heads),), mask=mask)


def cross(*, mask: Mask = FULL) -> Mechanism:
    """Queries of one sequence, keys and values of another; their numbers may differ."""
    return mechanism_with("cross", CROSS, mask=mask)


CARDS = (
    Card(
        name="simplified",
        family="kinds",
        line="Each token becomes the mean of all tokens, weighted by likeness; nothing is learned.",
        equation="a = softmax(x xᵀ),  o = a x",
        source=SIMPLIFIED,
        time="O(n² d)",
        memory="O(n d)",
        attends="every token",
        factory=simplified,
        arrange=lambda x, s: x if x.q.shape != x.k.shape else x.replace(k=x.q, v=x.q),
    ),
    Card(
        name="trainable",
        family="kinds",
        line="Three learned matrices make each token's query, key and value.",
        equation="q = x W_q,  k = x W_k,  v = x W_v,  o = softmax(q kᵀ / √Dk) v",
        source=TRAINABLE,
        time="O(n² d + n d²)",
        memory="O(n d)",
        attends="every token",
        factory=trainable,
        example=lambda s: {
            "w_q": s.normal(s.key_width, 3, seed=1),
            "w_k": s.normal(s.key_width, 3, seed=2),
            "w_v": s.normal(s.value_width, 5, seed=3),
        },
        parameters={"w_q": "[D,M] or [H,D,M]", "w_k": "[D,M] or [H,D,M]", "w_v": "[D,Dv] or [H,D,Dv]"},
    ),
    Card(
        name="causal",
        family="kinds",
        line="Each token sees itself and the tokens before it, so that the next can be predicted.",
        equation="a = softmax(q kᵀ / √Dk) over p_j <= p_i",
        source=CAUSAL,
        time="O(n² d), half the pairs",
        memory="O(n d)",
        attends="itself and the past",
        factory=causal,
    ),
    Card(
        name="multi_head",
        family="kinds",
        line="Several attentions side by side, each looking for something else.",
        equation="o_h = softmax(q_h k_hᵀ / √Dk) v_h for each head h",
        source=MULTI_HEAD,
        time="O(n² d)",
        memory="O(n d)",
        attends="every token, each head in its own way",
        factory=multi_head,
        example=lambda s: {"heads": s.heads},
    ),
    Card(
        name="cross",
        family="kinds",
        line="One sequence looks at another: a translation at its source.",
        equation="o = softmax(q k'ᵀ / √Dk) v',  k', v' from the other sequence",
        source=CROSS,
        time="O(n n' d)",
        memory="O((n + n') d)",
        stored="O(n n')",
        attends="every token of the other sequence",
        factory=cross,
    ),
)
