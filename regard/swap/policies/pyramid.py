"""Budgets that shrink from the first layer to the last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from regard.errors import UserError
from regard.swap.policies.policy import Prompt, tokens_of
from regard.swap.policies.snapkv import SnapKV


@dataclass(frozen=True)
class PyramidKV(SnapKV):
    """SnapKV's votes, more tokens for early layers and fewer for late ones (PyramidKV: Cai 2024, section 4.2).

    With budget b of n tokens, m = b / β and M = 2 b - m, or M = n - w where that is less (then m = 2 b - M): layer l of
    L keeps M - l (M - m) / (L - 1). Where n >= M >= m >= w does not hold, every layer keeps b.
    """

    name: ClassVar[str] = "pyramid"
    source: ClassVar[str] = "Cai et al. 2024, PyramidKV: Dynamic KV Cache Compression, section 4.2"
    formula: ClassVar[str] = "SnapKV's votes; layer l of L keeps M - l (M - m) / (L - 1) tokens"

    beta: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beta < 1:
            raise UserError(f"{self}: beta is at least 1, got {self.beta}")

    def count(self, prompt: Prompt) -> int:
        length = prompt.length
        wanted = float(self.budget) if isinstance(self.budget, int) else length * self.budget
        least = wanted / self.beta
        most = 2 * wanted - least
        if most >= length - self.window:
            most = length - self.window
            least = 2 * wanted - most
        if not length >= most >= least >= self.window:
            return tokens_of(self.budget, length)
        step = (most - least) / (prompt.layers - 1) if prompt.layers > 1 else 0.0
        return round(most - prompt.layer * step)
