"""Masks by where a key lies: from a query, from the start, in the query's chunk or document."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from regard.core import ranges
from regard.core.ranges import Ranges
from regard.errors import UserError
from regard.inputs import Inputs, require_positions
from regard.parts.joined import Combinable


@dataclass(frozen=True, eq=False)
class Band(Combinable):
    """-after <= p_i - p_j <= before: a band, inclusive on both sides; None means no limit on that side."""

    before: int | None
    after: int | None

    def __post_init__(self) -> None:
        for name, width in (("before", self.before), ("after", self.after)):
            if width is not None and width < 0:
                raise UserError(f"near({name}={width}): a band reaches at least 0 tokens; give 0 or more, or None")

    @property
    def is_causal(self) -> bool:
        return self.after == 0

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        seen = (query == query) & (key == key)
        if self.before is not None:
            seen = seen & (query - key <= self.before)
        if self.after is not None:
            seen = seen & (key - query <= self.after)
        return seen

    def ranges(self, x: Inputs) -> Ranges | None:
        require_positions(x, str(self))
        at = x.query_positions
        begin = None if self.before is None else at - self.before
        return between(x, begin, None if self.after is None else at + self.after + 1)

    def __str__(self) -> str:
        if self.after == 0:
            return "causal" if self.before is None else f"window({self.before + 1})"
        return f"near({self.before}, {self.after})"


@dataclass(frozen=True, eq=False)
class FirstKeys(Combinable):
    """p_j < count: the first keys; with causal=True only those at or before the query."""

    count: int
    causal: bool = True

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UserError(f"{self}: at least 1 token, got {self.count}")

    @property
    def reads_positions(self) -> bool:
        return self.causal

    @property
    def is_causal(self) -> bool:
        return self.causal

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        seen = (key < self.count) & (query == query)
        return seen & (key <= query) if self.causal else seen

    def ranges(self, x: Inputs) -> Ranges | None:
        if self.causal:
            require_positions(x, str(self))
        limit = torch.full_like(x.query_positions, self.count)
        return between(x, None, torch.minimum(limit, x.query_positions + 1) if self.causal else limit)

    def __str__(self) -> str:
        return f"{'sinks' if self.causal else 'globals'}({self.count})"


@dataclass(frozen=True, eq=False)
class Prefix(Combinable):
    """p_j < count or p_j <= p_i: a prefix seen by all, causal after it (prefix LM: Raffel 2020, section 3.2.1)."""

    count: int

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key < self.count) | (key <= query)

    def ranges(self, x: Inputs) -> Ranges | None:
        require_positions(x, str(self))
        return between(x, None, (x.query_positions + 1).clamp(min=self.count))

    def __str__(self) -> str:
        return f"prefix({self.count})"


@dataclass(frozen=True)
class GlobalTokens(Combinable):
    """p_i < count or p_j < count: the first tokens see all and are seen by all (Beltagy 2020, section 3)."""

    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UserError(f"global_tokens({self.count}): at least 1 token")

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key < self.count) | (query < self.count)

    def ranges(self, x: Inputs) -> Ranges | None:
        require_positions(x, str(self))
        limit = torch.full_like(x.query_positions, self.count)
        all_keys = torch.iinfo(limit.dtype).max
        return between(x, None, limit.masked_fill(x.query_positions < self.count, all_keys))

    def __str__(self) -> str:
        return f"global_tokens({self.count})"


@dataclass(frozen=True, eq=False)
class Chunk(Combinable):
    """floor(p_i / size) = floor(p_j / size): attention inside chunks of positions (Llama 4)."""

    size: int

    def __post_init__(self) -> None:
        if self.size < 1:
            raise UserError(f"chunk({self.size}): a chunk holds at least 1 token")

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return query.div(self.size, rounding_mode="floor") == key.div(self.size, rounding_mode="floor")

    def ranges(self, x: Inputs) -> Ranges | None:
        require_positions(x, str(self))
        begin = x.query_positions.div(self.size, rounding_mode="floor") * self.size
        return between(x, begin, begin + self.size)

    def __str__(self) -> str:
        return f"chunk({self.size})"


@dataclass(frozen=True, eq=False)
class Documents(Combinable):
    """id[p_i] = id[p_j]: packed sequences do not see each other. ids: integers [batch or 1, positions]. Positions below
    0 or beyond the ids belong to no document: they see nothing and are not seen."""

    ids: Tensor

    def __post_init__(self) -> None:
        if self.ids.ndim != 2 or self.ids.is_floating_point() or self.ids.is_complex():
            raise UserError(
                f"document ids are integers [batch or 1, positions], got {self.ids.dtype} {list(self.ids.shape)}"
            )

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        row, last = batch if self.ids.shape[0] > 1 else torch.zeros_like(batch), self.ids.shape[1] - 1
        inside = [(at >= 0) & (at <= last) for at in (query, key)]
        if last < 0:
            return inside[0] & inside[1]
        of_query, of_key = (self.ids[row, at.clamp(0, last)] for at in (query, key))
        return (of_query == of_key) & inside[0] & inside[1]

    def __str__(self) -> str:
        return "documents"


@dataclass(frozen=True)
class Every(Combinable):
    """(p_i - p_j) mod step = 0: every step-th key (strided attention: Child 2019, section 4.3; dilation)."""

    step: int

    def __post_init__(self) -> None:
        if self.step < 1:
            raise UserError(f"every({self.step}): a step is at least 1 token")

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query - key) % self.step == 0

    def __str__(self) -> str:
        return f"every({self.step})"


@dataclass(frozen=True)
class Dilated(Combinable):
    """|p_i - p_j| <= width·step and (p_i - p_j) mod step = 0: a band with gaps (Beltagy 2020, section 3.1)."""

    width: int
    step: int

    def __post_init__(self) -> None:
        if self.width < 0 or self.step < 1:
            raise UserError(f"{self}: a width of at least 0 keys and a step of at least 1")

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        back = query - key
        return (back.abs() <= self.width * self.step) & (back % self.step == 0)

    def ranges(self, x: Inputs) -> Ranges | None:
        require_positions(x, str(self))
        if 2 * self.width + 1 > ranges.MAX_RUNS or not in_order(x.key_positions):
            return None
        offsets = torch.arange(-self.width, self.width + 1, device=x.q.device) * self.step
        wanted = x.query_positions[..., None] + offsets
        start, stop = (first(x.key_positions, (wanted + past).flatten(1)).view(wanted.shape) for past in (0, 1))
        empty = stop <= start
        start, stop = (side.masked_fill(empty, x.k.shape[2]).to(torch.int32) for side in (start, stop))
        order = start.argsort(dim=-1, stable=True)
        return Ranges(start.gather(-1, order)[:, None], stop.gather(-1, order)[:, None], x.k.shape[2])

    def __str__(self) -> str:
        return f"dilated({self.width}, {self.step})"


@dataclass(frozen=True)
class Summary(Combinable):
    """p_j mod size >= size - count: the last `count` keys of each chunk (fixed attention: Child 2019, section 4.3)."""

    size: int
    count: int
    reads_positions: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 1 <= self.count <= self.size:
            raise UserError(f"summary({self.size}, {self.count}): between 1 key and the whole chunk")

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key % self.size >= self.size - self.count) & (query == query)

    def __str__(self) -> str:
        return f"summary({self.size}, {self.count})"


@dataclass(frozen=True)
class Heads(Combinable):
    """begin <= h < end: true for some heads only, so that heads may see differently."""

    begin: int
    end: int
    reads_positions: ClassVar[bool] = False

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (head >= self.begin) & (head < self.end) & (query == query) & (key == key)

    def __str__(self) -> str:
        return f"heads({self.begin}, {self.end})"


def between(x: Inputs, begin: Tensor | None, end: Tensor | None) -> Ranges | None:
    """The keys at positions begin … end - 1 of each query, [B,Tq] each, None for no bound; None for unsorted keys."""
    if not in_order(x.key_positions):
        return None
    start = torch.zeros_like(x.query_positions) if begin is None else first(x.key_positions, begin)
    stop = torch.full_like(start, x.k.shape[2]) if end is None else first(x.key_positions, end)
    return ranges.between(start[:, None], stop[:, None], x.k.shape[2])


def in_order(positions: Tensor) -> bool:
    """Whether no position is below the one before it."""
    return bool((positions[:, 1:] >= positions[:, :-1]).all())


def first(key_positions: Tensor, at_least: Tensor) -> Tensor:
    """The first key slot whose position reaches a bound, for sorted positions. [B,Tq]."""
    return torch.searchsorted(key_positions.contiguous(), at_least.contiguous())
