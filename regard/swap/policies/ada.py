"""Budgets shared out over the heads of a layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from regard.errors import UserError
from regard.swap.policies.policy import Prompt, tokens_of
from regard.swap.policies.snapkv import SnapKV


@dataclass(frozen=True)
class AdaKV(SnapKV):
    """SnapKV's votes of all heads of a layer in one ranking, so that heads that look widely keep more (Ada-KV: Feng
    2024, algorithm 1). Each head keeps at least `safe` of its even share.
    """

    name: ClassVar[str] = "ada"
    source: ClassVar[str] = "Feng et al. 2024, Ada-KV: Optimizing KV Cache Eviction by Adaptive Budget Allocation"
    formula: ClassVar[str] = "the G b best of all heads' votes; each head's best α b are safe"

    safe: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.safe <= 1:
            raise UserError(f"{self}: safe is a share from 0 to 1, got {self.safe}")

    def keep(self, prompt: Prompt, scores: Tensor) -> list[Tensor]:
        each = tokens_of(self.budget, prompt.length)
        safe = max(1, int(each * self.safe)) if self.safe else 0
        ranked = scores.clone()
        ranked.scatter_(-1, scores.topk(safe, -1).indices, torch.finfo(ranked.dtype).max)
        best = ranked.flatten().topk(prompt.groups * each).indices
        head, token = best // prompt.length, best % prompt.length
        return [token[head == group].sort().values for group in range(prompt.groups)]
