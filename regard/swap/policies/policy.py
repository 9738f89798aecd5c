"""A Policy: which tokens of a prompt a key-value head keeps, and which one it gives up while writing.

    scores = policy.scores(prompt)          [G,n], once a layer, after its prompt was read
    kept   = policy.keep(prompt)            per key-value head, the tokens that stay: by default its best-scored ones
    lost   = the lowest of policy.writing(…)  per token written, for policies that hold the budget while they write

Every number is an exact statistic of the weights that the model computed on the prompt.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from regard import core
from regard.errors import UserError
from regard.inputs import Inputs, inputs
from regard.mechanism import Mechanism
from regard.parts.masks import causal
from regard.run import choose, compose

Budget = float | int
"""What is kept: a share of the prompt (0 < share <= 1), or a number of tokens (2 or more)."""


def checked_budget(budget: Any, of: str) -> Budget:
    """The budget. Raises UserError for one that keeps nothing, and for a share above 1."""
    whole = isinstance(budget, int) and not isinstance(budget, bool)
    if isinstance(budget, bool) or not isinstance(budget, int | float) or (not whole and not 0 < budget <= 1):
        raise UserError(f"{of}({budget}): a budget is a share above 0 and up to 1, or a number of tokens such as 512")
    if whole and budget < 1:
        raise UserError(f"{of}({budget}): a budget of no tokens keeps nothing; give a share up to 1, or tokens")
    return float(budget) if budget == 1 else budget


def tokens_of(budget: Budget, length: int) -> int:
    """How many of so many tokens a budget keeps: at least one, no more than there are."""
    wanted = budget if isinstance(budget, int) else int(length * budget + 1e-9)
    return max(1, min(length, wanted))


class Rotary(Protocol):
    """The rotation that a model applies to queries and keys."""

    def back(self, q: Tensor) -> Tensor:
        """Queries [H,n,D] at positions 0 … n-1 without their rotation."""

    def ahead(self, length: int, future: int) -> Tensor:
        """[D,D]: the mean rotation at positions length … length + future - 1."""


@dataclass(frozen=True, eq=False)
class Prompt:
    """One layer's prompt of one sequence, padding left out.

    q [H,n,Dk], k [G,n,Dk], v [G,n,Dv] as attention took them. mechanism: the model's own. layer: its number among the
    managed layers, of `layers`. unrotate: takes position encodings off queries [H,n,Dk] at these positions, and gives
    the mean rotation of later ones; None where the model has none of its own.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    mechanism: Mechanism
    layer: int
    layers: int
    rotary: Rotary | None = None

    @property
    def length(self) -> int:
        return self.k.shape[1]

    @property
    def groups(self) -> int:
        return self.k.shape[0]

    @cached_property
    def _inputs(self) -> Inputs:
        return inputs(self.q[None], self.k[None], self.v[None])

    def weights(self, rows: slice) -> Tensor:
        """The exact weights [H, rows, n] of some rows."""
        return compose.weights(self._causal, self._inputs, rows, slice(0, self.length))[0]

    def received(self) -> Tensor:
        """Σ_i a_ij, float64 [H,n]: the weight that each key receives from all rows, in one walk."""
        watch = core.Watch((core.ColumnMass(),))
        for name in choose.candidates(self.q.device):
            backend = choose.BACKENDS[name]
            choice = choose.choose(self._causal, self._inputs, name, watch, output=False) if backend.closed else None
            if choice is not None:
                found = choice.walk(watch, output=False).statistics[0]
                assert isinstance(found, Tensor)
                return found[0]
        return self._received_in_strips()

    def _received_in_strips(self, rows: int = 256) -> Tensor:
        total = torch.zeros(self.q.shape[0], self.length, dtype=torch.float64, device=self.q.device)
        for begin in range(0, self.length, rows):
            total += self.weights(slice(begin, min(begin + rows, self.length))).sum(1, dtype=torch.float64)
        return total

    @cached_property
    def _causal(self) -> Mechanism:
        return self.mechanism.masked(causal())

    def per_group(self, by_head: Tensor) -> Tensor:
        """[H,…] averaged over the query heads of each key-value head, [G,…]."""
        return by_head.unflatten(0, (self.groups, -1)).mean(1)


@dataclass(frozen=True)
class Policy(ABC):
    """What stays in a cache. A policy is a class in any file of this folder; it is found there by its name.

    budget: see Budget. holds: whether the budget is held while writing, a token for a token. reads_mass: whether
    `writing` reads the weights of the row just written.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    formula: ClassVar[str]
    holds: ClassVar[bool] = False
    reads_mass: ClassVar[bool] = False

    budget: float | int

    def __post_init__(self) -> None:
        object.__setattr__(self, "budget", checked_budget(self.budget, self.name))

    @property
    def keeps_all(self) -> bool:
        """Whether nothing is ever given up."""
        return self.budget == 1.0

    @abstractmethod
    def scores(self, prompt: Prompt) -> Tensor:
        """[G,n]: how much each token of the prompt is worth to each key-value head."""

    def count(self, prompt: Prompt) -> int:
        """Tokens that each key-value head of this layer keeps of the prompt."""
        return tokens_of(self.budget, prompt.length)

    def keep(self, prompt: Prompt, scores: Tensor) -> list[Tensor]:
        """Per key-value head the tokens that it keeps, ascending."""
        best = scores.topk(self.count(prompt), dim=-1).indices
        return list(best.sort(-1).values)

    def limits(self, prompt: Prompt) -> list[int | None]:
        """The most tokens that each key-value head holds while writing; None: as many as are written."""
        if not self.holds or self.keeps_all:
            return [None] * prompt.groups
        most = self.budget if isinstance(self.budget, int) else self.count(prompt)
        return [most] * prompt.groups

    def started(self, prompt: Prompt, scores: Tensor) -> Tensor:
        """What is remembered of each token [G,n], for policies that hold their budget."""
        return scores

    def writing(self, memory: Tensor, ages: Tensor, mass: Tensor | None, groups: int) -> tuple[Tensor, Tensor]:
        """(worth, memory) [rows, slots] after a token was written; the least worth token is given up.

        A row is a key-value head of a sequence, `groups` of them in a sequence. memory: as `started` or the last call
        left it, 0 for the new token. ages: tokens written since, the new one 0. mass: the weights of the row just
        written, averaged over the query heads of its key-value head.
        """
        raise NotImplementedError(f"{self.name} holds no budget while writing")

    def __str__(self) -> str:
        return f"{self.name}({self.budget:g})"
