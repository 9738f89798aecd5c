"""Selection without eviction: every token stays, a query reads the pages that can matter to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from regard.swap.policies.policy import Policy, Prompt, tokens_of


@dataclass(frozen=True)
class Quest(Policy):
    """A query reads the pages with the largest bound on their scores, Σ_d max(q_d min_d, q_d max_d) over the smallest
    and largest of each feature of a page's keys (Quest: Tang 2024, section 3.3), and the page being written.

    Bounds are summed over the query heads of a key-value head. The first `skip` layers read everything. The cache
    holds all tokens: this saves time, not memory.
    """

    name: ClassVar[str] = "quest"
    source: ClassVar[str] = "Tang et al. 2024, Quest: Query-Aware Sparsity for Efficient Long-Context LLM Inference"
    formula: ClassVar[str] = "read the pages P with the largest Σ_d max(q_d min_P k_d, q_d max_P k_d)"

    budget: float | int
    skip: int = 2

    def scores(self, prompt: Prompt) -> Tensor:
        return torch.ones(prompt.groups, prompt.length, device=prompt.k.device)

    def count(self, prompt: Prompt) -> int:
        return prompt.length

    def pages(self, layer: int, length: int, page_size: int) -> int | None:
        """How many pages a query of this layer reads at a length; None for all."""
        there = -(-length // page_size)
        wanted = -(-tokens_of(self.budget, length) // page_size)
        return None if layer < self.skip or wanted >= there else wanted

    @staticmethod
    def bounds(q: Tensor, least: Tensor, most: Tensor) -> Tensor:
        """[rows, pages] from q [rows, heads, D] and the pages' smallest and largest features [rows, pages, D]."""
        up, down = q.clamp(min=0), q.clamp(max=0)
        return (up @ most.mT + down @ least.mT).sum(1)
