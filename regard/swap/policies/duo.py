"""Heads that retrieve keep all, heads that stream keep the first tokens and the latest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from regard.errors import UserError
from regard.swap.policies.policy import Policy, Prompt


@dataclass(frozen=True)
class Duo(Policy):
    """The share `budget` of key-value heads that look farthest keeps every token; the others keep the first `sinks`
    and the latest `recent` (DuoAttention: Xiao 2024, section 3), with heads measured instead of trained.

    A head's measure is what it weighs beyond those tokens, Σ_i Σ_{s <= j <= i-r} a_ij over all rows of a text
    (`regard.swap.retrieval`), given to `regard.cache(model, policy, measured=…)`, [layers, G].
    """

    name: ClassVar[str] = "duo"
    source: ClassVar[str] = "Xiao et al. 2024, DuoAttention: Efficient Long-Context LLM Inference, section 3"
    formula: ClassVar[str] = "retrieval heads keep all; streaming heads j < s and the latest r"
    holds: ClassVar[bool] = True

    budget: float | int
    sinks: int = 4
    recent: int = 256
    measured: Tensor | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.budget, int):
            raise UserError(f"duo({self.budget}): its budget is the share of heads that retrieve, above 0 and up to 1")

    def retrieves(self, prompt: Prompt) -> list[bool]:
        """Which key-value heads of the prompt's layer keep all: the best of all layers, by their measure."""
        assert isinstance(self.budget, float)
        if self.measured is None:
            raise UserError("duo tells heads apart by measures: give measured=regard.swap.retrieval(model, ids)")
        if self.measured.shape != (prompt.layers, prompt.groups):
            raise UserError(
                f"duo was given measures {list(self.measured.shape)} for {prompt.layers} layers of {prompt.groups} "
                "key-value heads"
            )
        flat = self.measured.flatten()
        streaming = flat.argsort(stable=True)[: round(len(flat) * (1 - self.budget))]
        keeps = torch.ones(len(flat), dtype=torch.bool)
        keeps[streaming] = False
        return keeps.view(prompt.layers, prompt.groups)[prompt.layer].tolist()

    def scores(self, prompt: Prompt) -> Tensor:
        at = torch.arange(prompt.length, device=prompt.k.device)
        kept = (at < self.sinks) | (at >= prompt.length - self.recent)
        return torch.stack([torch.ones_like(kept) if all_ else kept for all_ in self.retrieves(prompt)]).double()

    def keep(self, prompt: Prompt, scores: Tensor) -> list[Tensor]:
        return [row.nonzero()[:, 0] for row in scores]

    def limits(self, prompt: Prompt) -> list[int | None]:
        return [None if all_ else self.sinks + self.recent for all_ in self.retrieves(prompt)]

    def started(self, prompt: Prompt, scores: Tensor) -> Tensor:
        at = torch.arange(prompt.length, device=prompt.k.device)
        return (at < self.sinks).double().expand(prompt.groups, -1)

    def writing(self, memory: Tensor, ages: Tensor, mass: Tensor | None, groups: int) -> tuple[Tensor, Tensor]:
        return memory.where(memory > 0, -ages.to(memory.dtype) - 1), memory
