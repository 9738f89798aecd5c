"""Rotary positions: queries and keys turned by their position."""

from __future__ import annotations

from regard.mechanism import Mask, Mechanism
from regard.parts.defaults import FULL, mechanism_with
from regard.parts.positions import Scaling
from regard.parts.prepare import Rotary
from regard.zoo.card import Card

SOURCE = "Su et al. 2021, RoFormer, eq. 14-16"


def rotary(
    *,
    base: float = 10_000.0,
    width: int | None = None,
    scaling: Scaling | None = None,
    interleaved: bool = False,
    mask: Mask = FULL,
) -> Mechanism:
    """s_ij = (R(p_i) q_i)·(R(p_j) k_j) / √Dk. scaling: positions.Linear, Dynamic, Yarn or Llama3, for longer inputs."""
    return mechanism_with("rotary", SOURCE, prepare=(Rotary(base, width, scaling, interleaved),), mask=mask)


CARDS = (
    Card(
        name="rotary",
        family="positions",
        line="Each pair of dimensions turns with the position, so that scores see only the distance.",
        equation="s_ij = q_iᵀ R(p_j - p_i) k_j / √Dk,  R turns pair m by θ_m = base^{-2m/Dk} per token",
        source=SOURCE,
        time="O(n² d)",
        memory="O(n d)",
        attends="every key",
        factory=rotary,
    ),
)
