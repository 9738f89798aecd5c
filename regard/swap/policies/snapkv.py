"""What the last queries of the prompt vote for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import avg_pool1d, pad

from regard.errors import UserError
from regard.swap.policies.policy import Policy, Prompt


@dataclass(frozen=True)
class SnapKV(Policy):
    """The tokens that the last `window` queries weigh most, pooled over `kernel` neighbours (SnapKV: Li 2024, section
    4), and those last tokens themselves. What is written afterwards is all kept.
    """

    name: ClassVar[str] = "snapkv"
    source: ClassVar[str] = "Li et al. 2024, SnapKV: LLM Knows What You are Looking for Before Generation, section 4"
    formula: ClassVar[str] = "mean_{i > n-w} a_ij, averaged over `kernel` neighbours and the heads of a group"

    budget: float | int
    window: int = 64
    kernel: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window < 1 or self.kernel < 1 or self.kernel % 2 == 0:
            raise UserError(f"{self}: a window of at least 1 token, and an odd kernel of at least 1")

    def scores(self, prompt: Prompt) -> Tensor:
        before = prompt.length - self.window
        if before < 1:
            raise UserError(
                f"{self.name} lets the last {self.window} tokens of a prompt vote on those before them, and this one "
                f"has {prompt.length}; give a longer prompt, or window={max(prompt.length // 4, 1)}"
            )
        votes = prompt.weights(slice(before, prompt.length))[..., :before].mean(1)
        votes = avg_pool1d(votes[None], self.kernel, stride=1, padding=self.kernel // 2)[0]
        top = float(votes.amax()) + 1
        votes = pad(prompt.per_group(votes), (0, self.window), value=top)
        votes[:, before:] += torch.arange(self.window, device=votes.device)  # the latest first, where few are kept
        return votes
