"""Which weights and which tokens a statistic asks for, under the names that several of them use."""

from __future__ import annotations

from regard.mechanism import WeightKind
from regard.statistic import Need

UNSIGNED: frozenset[WeightKind] = frozenset({"distribution", "subunit", "nonnegative"})
MASSES: frozenset[WeightKind] = frozenset({"distribution", "subunit"})
SAME_AXIS: frozenset[Need] = frozenset({"same_axis"})
SAME_TOKENS: frozenset[Need] = frozenset({"same_axis", "tokens"})
