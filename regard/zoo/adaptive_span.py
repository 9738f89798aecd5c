"""Adaptive span: each head learns how far back to look."""

from __future__ import annotations

from torch import Tensor

from regard.errors import UserError
from regard.mechanism import Mechanism
from regard.parts.defaults import mechanism_with
from regard.parts.relative import Span, SpanScore
from regard.parts.scores import Dot
from regard.zoo.card import Card

SOURCE = "Sukhbaatar et al. 2019, Adaptive Attention Span in Transformers, eq. 5-6"


def adaptive_span(*, z: Tensor, ramp: float = 32.0) -> Mechanism:
    """a = m_z e^s / Σ m_z e^s, m_z(d) = clamp((R + z - d) / R, 0, 1), causal. z: learned [heads]; ramp R: tokens."""
    if not ramp > 0:
        raise UserError(f"adaptive_span(ramp={ramp}): the ramp is above 0 tokens")
    return mechanism_with("adaptive_span", SOURCE, score=(Dot(), SpanScore(z, ramp)), mask=Span(z, ramp))


CARDS = (
    Card(
        name="adaptive_span",
        family="adaptive",
        line="A window with a soft edge whose length each head learns; short heads cost little.",
        equation="a_ij = m(p_i - p_j) e^{s_ij} / Σ_j m(p_i - p_j) e^{s_ij},  m(d) = clamp((R + z_h - d) / R, 0, 1)",
        source=SOURCE,
        time="O(n max(z + R) d)",
        memory="O(n d)",
        attends="itself and the z + R tokens before, a length of each head's own",
        factory=adaptive_span,
        example=lambda s: {"z": 1.3 + s.normal(s.heads).abs(), "ramp": 2.5},
        parameters={"z": "[H]: the span, in tokens; the paper adds λ Σ z to the loss"},
    ),
)
