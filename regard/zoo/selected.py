"""Selected blocks: MoBA and Quest choose by content which blocks of keys a query reads."""

from __future__ import annotations

from regard.mechanism import Mechanism
from regard.parts.defaults import mechanism_with
from regard.parts.masks import causal
from regard.parts.select import SelectBlocks
from regard.zoo.card import Card

MOBA = "Lu et al. 2025, MoBA: Mixture of Block Attention, eq. 3-6"
QUEST = "Tang et al. 2024, Quest: Query-Aware Sparsity for Efficient Long-Context Inference, section 3.3"


def moba(*, size: int, count: int) -> Mechanism:
    """The `count` blocks of `size` keys whose mean key fits the query best, its own always; then causal softmax."""
    return mechanism_with("moba", MOBA, prepare=(SelectBlocks(size, count, "mean"),), mask=causal())


def quest(*, size: int, count: int) -> Mechanism:
    """The `count` pages of `size` keys with the highest bound on q·k, its own always; then causal softmax."""
    return mechanism_with("quest", QUEST, prepare=(SelectBlocks(size, count, "bound"),), mask=causal())


CARDS = (
    Card(
        name="moba",
        family="masks",
        line="A query is routed to the few blocks whose average key it likes best.",
        equation="I = top-k_b ⟨q, mean(K_b)⟩ ∪ own block,  o = softmax(q K_Iᵀ / √Dk) V_I,  causal",
        source=MOBA,
        time="O(n k b d + n (n / b) d), b the block",
        memory="O(n (d + k))",
        attends="its own block and the k - 1 best past ones",
        factory=moba,
        example=lambda s: {"size": 2 if s.keys < 256 else 64, "count": 2},
    ),
    Card(
        name="quest",
        family="masks",
        line="Only the pages whose smallest and largest keys promise a high score are read.",
        equation="u_b = Σ_d max(q_d min_b,d, q_d max_b,d),  I = top-k_b u_b ∪ own page",
        source=QUEST,
        time="O(n k b d + n (n / b) d), b the page",
        memory="O(n (d + k))",
        attends="its own page and the k - 1 most promising past ones",
        factory=quest,
        example=lambda s: {"size": 2 if s.keys < 256 else 64, "count": 2},
    ),
)
