"""Attention over an external memory."""

from __future__ import annotations

from torch import Tensor

from regard.mechanism import Mechanism
from regard.parts.defaults import mechanism_with
from regard.parts.prepare import Memory
from regard.parts.scores import Dot
from regard.zoo.card import Card

SOURCE = "Sukhbaatar et al. 2015, End-To-End Memory Networks, eq. 1-2"


def external_memory(*, keys: Tensor, values: Tensor) -> Mechanism:
    """o = softmax(q·m_i) c_i over memory slots, not over tokens. keys m [G,slots,Dk], values c [G,slots,Dv]."""
    return mechanism_with("external_memory", SOURCE, prepare=(Memory(keys, values),), score=(Dot(1.0),))


CARDS = (
    Card(
        name="external_memory",
        family="kinds",
        line="Queries read a memory of slots that is not the sequence itself.",
        equation="p_i = softmax(qᵀ m_i),  o = Σ_i p_i c_i",
        source=SOURCE,
        time="O(n m d), m slots",
        memory="O(n d + m d)",
        stored="O(n m)",
        attends="every slot of the memory, no token",
        factory=external_memory,
        example=lambda s: {
            "keys": s.normal(s.groups, 3, s.key_width, seed=1),
            "values": s.normal(s.groups, 3, s.value_width, seed=2),
        },
        parameters={"keys": "[G,slots,Dk]: what a slot answers to", "values": "[G,slots,Dv]: what it holds"},
    ),
)
