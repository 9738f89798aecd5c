"""Masks: which positions may attend which. Combine them with & (and), | (or), ~ (not).

A mask is a predicate on logical positions; most also state their ranges at once, for sorted key positions, and those
that do not are run-length encoded exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from regard import ranges
from regard.mechanism import Inputs, Mask, encode_mask, ranges_of, reads_positions, require_positions
from regard.parts.noise import mixed_bits
from regard.ranges import Ranges


class Combinable:
    """What every mask shares: & | ~ build new masks, and a mask names itself in the text form."""

    def __and__(self, other: Mask) -> And:
        return And(self, other)  # type: ignore[arg-type]

    def __or__(self, other: Mask) -> Or:
        return Or(self, other)  # type: ignore[arg-type]

    def __invert__(self) -> Not:
        return Not(self)  # type: ignore[arg-type]


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
class Near(Combinable):
    """-after <= p_i - p_j <= before: a band, inclusive on both sides; None means no limit on that side."""

    before: int | None
    after: int | None

    def __post_init__(self) -> None:
        for name, width in (("before", self.before), ("after", self.after)):
            if width is not None and width < 0:
                raise ValueError(f"near({name}={width}): a band reaches at least 0 tokens; give 0 or more, or None")

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        seen = (query == query) & (key == key)
        if self.before is not None:
            seen = seen & (query - key <= self.before)
        if self.after is not None:
            seen = seen & (key - query <= self.after)
        return seen

    def ranges(self, x: Inputs) -> Ranges | None:
        require_positions(x, str(self))
        if not _sorted(x.key_positions):
            return None
        start = torch.zeros_like(x.query_positions)
        stop = start + x.k.shape[2]
        if self.before is not None:
            start = _first(x.key_positions, x.query_positions - self.before)
        if self.after is not None:
            stop = _first(x.key_positions, x.query_positions + self.after + 1)
        return ranges.between(start[:, None], stop[:, None], x.k.shape[2])

    def __str__(self) -> str:
        if self.after == 0:
            return "causal" if self.before is None else f"window({self.before + 1})"
        return f"near({self.before}, {self.after})"


@dataclass(frozen=True, eq=False)
class First(Combinable):
    """p_j < count: the first keys; with causal=True only those at or before the query."""

    count: int
    causal: bool = True

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"{self}: at least 1 token, got {self.count}")

    @property
    def reads_positions(self) -> bool:
        return self.causal

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        seen = (key < self.count) & (query == query)
        return seen & (key <= query) if self.causal else seen

    def ranges(self, x: Inputs) -> Ranges | None:
        if self.causal:
            require_positions(x, str(self))
        if not _sorted(x.key_positions):
            return None
        limit = torch.full_like(x.query_positions, self.count)
        limit = torch.minimum(limit, x.query_positions + 1) if self.causal else limit
        return ranges.between(torch.zeros_like(limit)[:, None], _first(x.key_positions, limit)[:, None], x.k.shape[2])

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
        if not _sorted(x.key_positions):
            return None
        limit = (x.query_positions + 1).clamp(min=self.count)
        return ranges.between(torch.zeros_like(limit)[:, None], _first(x.key_positions, limit)[:, None], x.k.shape[2])

    def __str__(self) -> str:
        return f"prefix({self.count})"


@dataclass(frozen=True, eq=False)
class Chunk(Combinable):
    """floor(p_i / size) = floor(p_j / size): attention inside chunks of positions (Llama 4)."""

    size: int

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"chunk({self.size}): a chunk holds at least 1 token")

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return query.div(self.size, rounding_mode="floor") == key.div(self.size, rounding_mode="floor")

    def ranges(self, x: Inputs) -> Ranges | None:
        require_positions(x, str(self))
        if not _sorted(x.key_positions):
            return None
        begin = x.query_positions.div(self.size, rounding_mode="floor") * self.size
        start, stop = _first(x.key_positions, begin), _first(x.key_positions, begin + self.size)
        return ranges.between(start[:, None], stop[:, None], x.k.shape[2])

    def __str__(self) -> str:
        return f"chunk({self.size})"


@dataclass(frozen=True, eq=False)
class Documents(Combinable):
    """id[p_i] = id[p_j]: packed sequences do not see each other. ids: integers [batch or 1, positions]."""

    ids: Tensor

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        row = batch if self.ids.shape[0] > 1 else torch.zeros_like(batch)
        return self.ids[row, query] == self.ids[row, key]

    def __str__(self) -> str:
        return "documents"


@dataclass(frozen=True)
class Every(Combinable):
    """(p_i - p_j) mod step = 0: every step-th key (strided attention: Child 2019, section 4.2; dilation)."""

    step: int

    def __post_init__(self) -> None:
        if self.step < 1:
            raise ValueError(f"every({self.step}): a step is at least 1 token")

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
            raise ValueError(f"{self}: a width of at least 0 keys and a step of at least 1")

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        back = query - key
        return (back.abs() <= self.width * self.step) & (back % self.step == 0)

    def ranges(self, x: Inputs) -> Ranges | None:
        require_positions(x, str(self))
        if 2 * self.width + 1 > ranges.MAX_RUNS or not _sorted(x.key_positions):
            return None
        offsets = torch.arange(-self.width, self.width + 1, device=x.q.device) * self.step
        wanted = x.query_positions[..., None] + offsets
        start, stop = (_first(x.key_positions, (wanted + past).flatten(1)).view(wanted.shape) for past in (0, 1))
        empty = stop <= start
        start, stop = (side.masked_fill(empty, x.k.shape[2]).to(torch.int32) for side in (start, stop))
        order = start.argsort(dim=-1, stable=True)
        return Ranges(start.gather(-1, order)[:, None], stop.gather(-1, order)[:, None], x.k.shape[2])

    def __str__(self) -> str:
        return f"dilated({self.width}, {self.step})"


@dataclass(frozen=True)
class Summary(Combinable):
    """p_j mod size >= size - count: the last `count` keys of each chunk (fixed attention: Child 2019, section 4.2)."""

    size: int
    count: int
    reads_positions: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 1 <= self.count <= self.size:
            raise ValueError(f"summary({self.size}, {self.count}): between 1 key and the whole chunk")

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key % self.size >= self.size - self.count) & (query == query)

    def __str__(self) -> str:
        return f"summary({self.size}, {self.count})"


@dataclass(frozen=True)
class GlobalTokens(Combinable):
    """p_i < count or p_j < count: the first tokens see all and are seen by all (Beltagy 2020, section 3)."""

    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"global_tokens({self.count}): at least 1 token")

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key < self.count) | (query < self.count)

    def ranges(self, x: Inputs) -> Ranges | None:
        require_positions(x, str(self))
        if not _sorted(x.key_positions):
            return None
        limit = torch.full_like(x.query_positions, self.count)
        stop = _first(x.key_positions, limit).masked_fill(x.query_positions < self.count, x.k.shape[2])
        return ranges.between(torch.zeros_like(stop)[:, None], stop[:, None], x.k.shape[2])

    def __str__(self) -> str:
        return f"global_tokens({self.count})"


@dataclass(frozen=True)
class NearBlocks(Combinable):
    """|⌊p_i / size⌋ - ⌊p_j / size⌋| <= reach: a band of blocks (Zaheer 2020, section 2)."""

    size: int
    reach: int

    def __post_init__(self) -> None:
        if self.size < 1 or self.reach < 0:
            raise ValueError(
                f"near_blocks({self.size}, {self.reach}): blocks of at least 1 token, a reach of at least 0"
            )

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return self._block(query).sub(self._block(key)).abs() <= self.reach

    def ranges(self, x: Inputs) -> Ranges | None:
        require_positions(x, str(self))
        if not _sorted(x.key_positions):
            return None
        begin = (self._block(x.query_positions) - self.reach) * self.size
        start = _first(x.key_positions, begin)
        stop = _first(x.key_positions, begin + (2 * self.reach + 1) * self.size)
        return ranges.between(start[:, None], stop[:, None], x.k.shape[2])

    def _block(self, positions: Tensor) -> Tensor:
        return positions.div(self.size, rounding_mode="floor")

    def __str__(self) -> str:
        return f"near_blocks({self.size}, {self.reach})"


@dataclass(frozen=True)
class RandomBlocks(Combinable):
    """Each block of queries sees `count` random blocks of keys, drawn per head from `seed` (Zaheer 2020, section 2).

    size: tokens per block; length: tokens of the sequence, beyond which nothing is drawn.
    """

    size: int
    count: int
    length: int
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size < 1 or not 1 <= self.count <= self.blocks:
            raise ValueError(
                f"{self}: blocks hold at least 1 token, and 1 to {max(self.blocks, 1)} of them can be drawn"
            )

    @property
    def blocks(self) -> int:
        return -(-self.length // max(self.size, 1))

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        block = torch.arange(self.blocks, device=query.device)
        of_query = query.div(self.size, rounding_mode="floor")
        draw = mixed_bits(self.seed, head, of_query, block)
        drawn = torch.zeros_like(draw, dtype=torch.bool)
        drawn.scatter_(-1, draw.argsort(dim=-1, stable=True)[..., : self.count], True)
        of_key = key.div(self.size, rounding_mode="floor")
        inside = (of_key >= 0) & (of_key < self.blocks)
        shape = torch.broadcast_shapes(drawn.shape[:-1], of_key.shape[:-1])
        index = of_key.clamp(0, self.blocks - 1).expand(*shape, -1)
        return drawn.expand(*shape, -1).gather(-1, index) & inside

    def __str__(self) -> str:
        return f"random_blocks({self.size}, {self.count}, {self.length}, {self.seed})"


@dataclass(frozen=True, eq=False)
class Blocks(Combinable):
    """layout[h, p_i // size, p_j // size]: block-sparse attention (Child 2019, section 5.4).

    layout: bool [heads or 1, query blocks, key blocks]; positions beyond it see nothing.
    """

    layout: Tensor
    size: int

    def __post_init__(self) -> None:
        if self.size < 1 or self.layout.ndim != 3 or self.layout.dtype != torch.bool:
            raise ValueError(
                "a block-sparse mask needs blocks of at least 1 token and a bool layout [heads or 1, blocks, blocks], "
                f"got size {self.size} and {self.layout.dtype} {list(self.layout.shape)}"
            )

    def __call__(self, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        i, j = (p.div(self.size, rounding_mode="floor") for p in (query, key))
        rows, columns = self.layout.shape[1:]
        inside = (i >= 0) & (i < rows) & (j >= 0) & (j < columns)
        h = head if self.layout.shape[0] > 1 else torch.zeros_like(head)
        return self.layout[h, i.clamp(0, rows - 1), j.clamp(0, columns - 1)] & inside

    def __str__(self) -> str:
        return "blocks"


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


@dataclass(frozen=True, eq=False)
class And(Combinable):
    """Both masks allow."""

    left: Mask
    right: Mask

    @property
    def reads_positions(self) -> bool:
        return reads_positions(self.left) or reads_positions(self.right)

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


def full() -> Full:
    """Every query sees every key."""
    return Full()


def causal() -> Near:
    """p_j <= p_i: the past and the present."""
    return Near(before=None, after=0)


def window(width: int) -> Near:
    """0 <= p_i - p_j < width: the last `width` tokens, itself included (Mistral 7B, section 2)."""
    if width < 1:
        raise ValueError(f"window({width}): a window holds at least 1 token; use causal() for no limit")
    return Near(before=width - 1, after=0)


def near(before: int | None, after: int | None) -> Near:
    """-after <= p_i - p_j <= before, inclusive: a band around each query; None: no limit on that side."""
    return Near(before, after)


def sinks(count: int) -> First:
    """The first `count` keys, never the future (StreamingLLM: Xiao 2024, section 3.2)."""
    return First(count, causal=True)


def global_keys(count: int) -> First:
    """The first `count` keys, seen by all queries."""
    return First(count, causal=False)


def prefix(count: int) -> Prefix:
    """Causal, and the first `count` keys are seen by all."""
    return Prefix(count)


def chunk(size: int) -> Chunk:
    """Attention inside chunks of `size` positions."""
    return Chunk(size)


def global_tokens(count: int) -> GlobalTokens:
    """The first `count` tokens see all and are seen by all."""
    return GlobalTokens(count)


def every(step: int) -> Every:
    """Every step-th key, counted from the query."""
    return Every(step)


def dilated(width: int, step: int) -> Dilated:
    """`width` keys to either side, `step` apart."""
    return Dilated(width, step)


def near_blocks(size: int, reach: int) -> NearBlocks:
    """Blocks of `size` positions, `reach` of them to either side of the query's own."""
    return NearBlocks(size, reach)


def summary(size: int, count: int) -> Summary:
    """The last `count` keys of each chunk of `size`."""
    return Summary(size, count)


def random_blocks(size: int, count: int, length: int, seed: int = 0) -> RandomBlocks:
    """Each block of queries sees `count` random blocks of keys."""
    return RandomBlocks(size, count, length, seed)


def heads(begin: int, end: int) -> Heads:
    """Only the heads begin … end - 1."""
    return Heads(begin, end)


def documents(ids: Tensor) -> Documents:
    """Packed sequences do not see each other; ids by position."""
    return Documents(ids)


def _joined_ranges(mask: And | Or, x: Inputs, join: Callable[[Ranges, Ranges], Ranges]) -> Ranges:
    """By interval algebra; where one side alone has too many intervals the whole may not: encode that."""
    try:
        return join(ranges_of(mask.left, x), ranges_of(mask.right, x))
    except ranges.TooManyRuns:
        return encode_mask(mask, x)


def _sorted(positions: Tensor) -> bool:
    return bool((positions[:, 1:] >= positions[:, :-1]).all())


def _first(key_positions: Tensor, at_least: Tensor) -> Tensor:
    """The first key slot whose position reaches a bound, for sorted positions. [B,Tq]."""
    return torch.searchsorted(key_positions.contiguous(), at_least.contiguous())
