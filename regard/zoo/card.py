"""The card of a mechanism in the catalogue: what it is called, computes, costs, and how to make one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from regard.errors import UserError
from regard.inputs import Inputs, inputs
from regard.protocol import Attention

Family = Literal[
    "scores",
    "kinds",
    "masks",
    "normalisers",
    "adaptive",
    "low rank and kernels",
    "recurrences",
    "compositions",
    "positions",
]


@dataclass(frozen=True)
class Sizes:
    """How large an example is: for the explainer and the tests."""

    batch: int = 1
    heads: int = 2
    groups: int = 2
    queries: int = 6
    keys: int = 6
    key_width: int = 4
    value_width: int = 4
    dtype: torch.dtype = torch.float64
    seed: int = 0

    def normal(self, *shape: int, seed: int = 1) -> Tensor:
        """Standard normal numbers that depend on these sizes' seed, the shape and `seed` only."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + seed)
        return torch.randn(*shape, dtype=torch.float64, generator=generator).to(self.dtype)

    def inputs(self) -> Inputs:
        """Random queries, keys and values of these sizes; queries of a longer past stand at its end."""
        later = self.keys - self.queries
        return inputs(
            self.normal(self.batch, self.heads, self.queries, self.key_width, seed=11),
            self.normal(self.batch, self.groups, self.keys, self.key_width, seed=12),
            self.normal(self.batch, self.groups, self.keys, self.value_width, seed=13),
            query_positions=torch.arange(self.queries) + max(later, 0),
        )


def no_arguments(sizes: Sizes) -> dict[str, Any]:
    """Nothing: the factory's defaults."""
    return {}


def as_given(x: Inputs, sizes: Sizes) -> Inputs:
    """Queries, keys and values as they are."""
    return x


@dataclass(frozen=True)
class Card:
    """A mechanism in the catalogue.

    line: one sentence for the list. equation, source: as published, with the equation's number. time, memory: as the
    number of tokens n grows (d widths, w a window, m slots or features). attends: what a query may see, in words.
    factory(**arguments) makes it; example(sizes) gives arguments that fit inputs of these sizes, and arrange turns
    plain inputs into what it takes (gates, a latent). refused: why it is no mechanism, and where it lives instead.
    parameters: what each learned tensor is. linear_memory: whether `memory` grows as n and no faster. stored: how many
    weights there are, the memory of an implementation that keeps them all, as textbooks do; empty where there are none.
    when: when one would use it, a sentence; models: those known for it; also: other names that people look for.
    """

    name: str
    family: Family
    line: str
    equation: str
    source: str
    time: str
    memory: str
    attends: str
    factory: Callable[..., Attention] | None = None
    example: Callable[[Sizes], dict[str, Any]] = no_arguments
    arrange: Callable[[Inputs, Sizes], Inputs] = as_given
    parameters: Mapping[str, str] = field(default_factory=dict)
    refused: str | None = None
    linear_memory: bool = True
    stored: str = "O(n²)"
    when: str = ""
    models: str = ""
    also: tuple[str, ...] = ()

    def make(self, **arguments: Any) -> Attention:
        """The mechanism for these arguments; raises UserError where it is refused."""
        if self.factory is None:
            raise UserError(f"{self.name} is not a mechanism: {self.refused}")
        return self.factory(**arguments)

    def made(self, sizes: Sizes) -> Attention:
        """The mechanism with its example's arguments."""
        return self.make(**self.example(sizes))
