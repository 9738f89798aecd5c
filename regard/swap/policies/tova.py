"""What the latest token looks at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from regard.swap.policies.policy import Policy, Prompt


@dataclass(frozen=True)
class Tova(Policy):
    """The tokens that the latest row weighs most, averaged over all heads of the layer (TOVA: Oren 2024, section 4)."""

    name: ClassVar[str] = "tova"
    source: ClassVar[str] = "Oren et al. 2024, Transformers are Multi-State RNNs, section 4"
    formula: ClassVar[str] = "a_nj of the latest row n, averaged over heads; the latest token stays"
    holds: ClassVar[bool] = True
    reads_mass: ClassVar[bool] = True

    def scores(self, prompt: Prompt) -> Tensor:
        last = prompt.weights(slice(prompt.length - 1, prompt.length))[:, 0].mean(0)
        last = torch.cat([last[:-1], last.amax(-1, keepdim=True) + 1])
        return last.expand(prompt.groups, -1)

    def writing(self, memory: Tensor, ages: Tensor, mass: Tensor | None, groups: int) -> tuple[Tensor, Tensor]:
        assert mass is not None
        worth = mass.unflatten(0, (-1, groups)).mean(1, keepdim=True).expand(-1, groups, -1).flatten(0, 1)
        return worth.masked_fill(ages == 0, torch.inf), memory
