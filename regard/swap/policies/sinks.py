"""The first tokens and the latest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from regard.swap.policies.policy import Policy, Prompt


@dataclass(frozen=True)
class Sinks(Policy):
    """The first `sinks` tokens and the latest ones (StreamingLLM: Xiao 2024, section 3.2), keys at their positions."""

    name: ClassVar[str] = "sinks"
    source: ClassVar[str] = "Xiao et al. 2024, Efficient Streaming Language Models with Attention Sinks, section 3.2"
    formula: ClassVar[str] = "keep j < s and the latest b - s"
    holds: ClassVar[bool] = True

    budget: float | int
    sinks: int = 4

    def scores(self, prompt: Prompt) -> Tensor:
        at = torch.arange(prompt.length, device=prompt.k.device, dtype=torch.float64)
        return at.where(at >= self.sinks, 2.0 * prompt.length - at).expand(prompt.groups, -1)

    def started(self, prompt: Prompt, scores: Tensor) -> Tensor:
        return (scores > prompt.length).to(torch.float64)  # 1 for sinks

    def writing(self, memory: Tensor, ages: Tensor, mass: Tensor | None, groups: int) -> tuple[Tensor, Tensor]:
        return memory.where(memory > 0, -ages.to(memory.dtype) - 1), memory
