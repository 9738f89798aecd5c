"""Masks joined by and, or, not: predicates and ranges alike."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from regard.core import ranges
from regard.core.ranges import Ranges
from regard.inputs import Inputs
from regard.lower import encode_mask, ranges_of, reads_positions
from regard.mechanism import Mask


class Combinable(ABC):
    """What every mask shares: & | ~ build new masks, and a mask names itself in the text form."""

    @abstractmethod
    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor: ...

    def __and__(self, other: Mask) -> Combinable:
        """Both; a mask that sees everything adds nothing."""
        if isinstance(other, Full):
            return self
        return other if isinstance(self, Full) and isinstance(other, Combinable) else And(self, other)

    def __or__(self, other: Mask) -> Or:
        return Or(self, other)

    def __invert__(self) -> Not:
        return Not(self)


@dataclass(frozen=True, eq=False)
class Full(Combinable):
    """Every query sees every key."""

    reads_positions: ClassVar[bool] = False

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query == query) & (key == key)

    def ranges(self, x: Inputs) -> Ranges:
        return ranges.full(x.q.shape[2], x.k.shape[2], x.q.device)

    def __str__(self) -> str:
        return "full"


@dataclass(frozen=True, eq=False)
class And(Combinable):
    """Both masks allow."""

    left: Mask
    right: Mask

    @property
    def reads_positions(self) -> bool:
        return reads_positions(self.left) or reads_positions(self.right)

    @property
    def is_causal(self) -> bool:
        return is_causal(self.left) or is_causal(self.right)

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return self.left(batch, head, query, key) & self.right(batch, head, query, key)

    def ranges(self, x: Inputs) -> Ranges:
        return _joined_ranges(self, x, lambda left, right: left & right)

    def __str__(self) -> str:
        return " & ".join(f"({part})" if isinstance(part, Or) else str(part) for part in (self.left, self.right))


@dataclass(frozen=True, eq=False)
class Or(Combinable):
    """Either mask allows."""

    left: Mask
    right: Mask

    @property
    def reads_positions(self) -> bool:
        return reads_positions(self.left) or reads_positions(self.right)

    @property
    def is_causal(self) -> bool:
        return is_causal(self.left) and is_causal(self.right)

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return self.left(batch, head, query, key) | self.right(batch, head, query, key)

    def ranges(self, x: Inputs) -> Ranges:
        return _joined_ranges(self, x, lambda left, right: left | right)

    def __str__(self) -> str:
        return f"{self.left} | {self.right}"


@dataclass(frozen=True, eq=False)
class Not(Combinable):
    """The mask forbids."""

    part: Mask

    @property
    def reads_positions(self) -> bool:
        return reads_positions(self.part)

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return ~self.part(batch, head, query, key)

    def ranges(self, x: Inputs) -> Ranges:
        return ~ranges_of(self.part, x)

    def __str__(self) -> str:
        return f"~({self.part})" if isinstance(self.part, And | Or) else f"~{self.part}"


def is_causal(mask: Mask) -> bool:
    """Whether a mask says that no query sees a later position."""
    return bool(getattr(mask, "is_causal", False))


def _joined_ranges(mask: And | Or, x: Inputs, join: Callable[[Ranges, Ranges], Ranges]) -> Ranges:
    """By interval algebra; where one side alone has too many intervals the whole may not: encode that."""
    try:
        return join(ranges_of(mask.left, x), ranges_of(mask.right, x))
    except ranges.TooManyRuns:
        return encode_mask(mask, x)
