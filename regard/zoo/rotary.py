"""Rotary positions: queries and keys turned by their position."""

from __future__ import annotations

from torch import Tensor

from regard.mechanism import Mask, Mechanism
from regard.parts.defaults import FULL, mechanism_with
from regard.parts.positions import Scaling
from regard.parts.rotary import Rotary, RotaryTables
from regard.zoo.card import Card, Sizes

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


def rotary_tables(*, cos: Tensor, sin: Tensor, interleaved: bool = False, mask: Mask = FULL) -> Mechanism:
    """Rotary positions by tables of cosines and sines instead of a rule: cos, sin [positions, width / 2], row p for
    position p. Whatever scaling made them is kept."""
    prepare = (RotaryTables(cos, sin, interleaved),)
    return mechanism_with("rotary_tables", SOURCE, prepare=prepare, mask=mask)


def _tables(s: Sizes) -> dict[str, Tensor]:
    angle = s.normal(s.queries + s.keys, s.key_width // 2)
    return {"cos": angle.cos(), "sin": angle.sin()}


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
    Card(
        name="rotary_tables",
        family="positions",
        line="Rotary positions whose angles come as tables of cosines and sines, such as a model's own.",
        equation="q_i ← R(p_i) q_i,  k_j ← R(p_j) k_j,  R(p) turns pair m by cos[p, m], sin[p, m]",
        source=SOURCE,
        time="O(n² d)",
        memory="O(n d)",
        attends="every key, up to the tables' length",
        factory=rotary_tables,
        example=_tables,
        parameters={"cos": "[positions,Dk/2]: given, not learned", "sin": "[positions,Dk/2]: given, not learned"},
    ),
)
