"""Heavy hitters: the tokens that received most attention so far."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from regard.swap.policies.policy import Policy, Prompt


@dataclass(frozen=True)
class H2O(Policy):
    """The tokens with the largest mean weight over the rows that could see them (H2O: Zhang 2023, section 4).

    The mean instead of the sum, as kvpress' ObservedAttention has it, so that a token is not kept for being early.
    """

    name: ClassVar[str] = "h2o"
    source: ClassVar[str] = "Zhang et al. 2023, H2O: Heavy-Hitter Oracle, section 4"
    formula: ClassVar[str] = "m_j = Σ_i a_ij / (n - j), averaged over the query heads of a key-value head"
    holds: ClassVar[bool] = True
    reads_mass: ClassVar[bool] = True

    def scores(self, prompt: Prompt) -> Tensor:
        rows = torch.arange(prompt.length, 0, -1, device=prompt.k.device)
        return prompt.per_group(prompt.received()) / rows

    def started(self, prompt: Prompt, scores: Tensor) -> Tensor:
        return scores * torch.arange(prompt.length, 0, -1, device=prompt.k.device)

    def writing(self, memory: Tensor, ages: Tensor, mass: Tensor | None, groups: int) -> tuple[Tensor, Tensor]:
        assert mass is not None
        memory = memory + mass
        return memory / (ages + 1), memory
