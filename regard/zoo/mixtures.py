"""Mixtures: masks joined by and, or, not; heads that differ."""

from __future__ import annotations

from regard.composite import ByHead
from regard.mechanism import Mask, Mechanism
from regard.parts import masks
from regard.parts.defaults import mechanism_with
from regard.zoo.card import Card, Sizes

MASKS = "masks are sets of pairs, and sets combine"
PER_HEAD = "Child et al. 2019, section 5.1 (heads with different patterns); Sukhbaatar et al. 2019"


def masked(*, mask: Mask) -> Mechanism:
    """Scaled dot-product attention under any mask: causal() & window(1024) | sinks(4), ~near(0, 0)."""
    return mechanism_with("masked", MASKS, mask=mask)


def per_head(*, parts: tuple[tuple[slice, Mechanism], ...]) -> ByHead:
    """Each slice of the query heads by a mechanism of its own, in order; each sees its heads numbered from 0."""
    return ByHead("per_head", PER_HEAD, parts)


def _halves(s: Sizes) -> dict[str, object]:
    first = s.heads // s.groups * (s.groups // 2) or s.heads
    local = mechanism_with("window", PER_HEAD, mask=masks.window(2))
    rest = (
        ((slice(first, s.heads), mechanism_with("causal", PER_HEAD, mask=masks.causal())),) if first < s.heads else ()
    )
    return {"parts": ((slice(0, first), local), *rest)}


CARDS = (
    Card(
        name="masked",
        family="compositions",
        line="Any masks joined by and, or, not.",
        equation="mask = m₁ & m₂ | ~m₃",
        source=MASKS,
        time="O(pairs · d)",
        memory="O(n d)",
        attends="what the masks together allow",
        factory=masked,
        example=lambda s: {"mask": masks.causal() & (masks.window(2) | masks.sinks(1)) & ~masks.every(3)},
    ),
    Card(
        name="per_head",
        family="compositions",
        line="Some heads look near, others far: each slice of heads has a mechanism of its own.",
        equation="o_h = attention_{part(h)}(q_h, k, v)",
        source=PER_HEAD,
        time="the sum of its parts",
        memory="O(n d)",
        attends="what the head's own mechanism allows",
        factory=per_head,
        example=_halves,
    ),
    Card(
        name="per_layer",
        family="compositions",
        line="Layers that differ: a model's own matter.",
        equation="x_{l+1} = layer_l(x_l; mechanism_l)",
        source="Gemma 3 report 2025, section 2 (five local layers to one global)",
        time="the sum of its layers",
        memory="O(n d)",
        attends="what the layer's own mechanism allows",
        refused="one call is one layer; give each layer its mechanism, in nn or with attach(layers=…)",
    ),
)
