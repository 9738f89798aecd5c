"""Tensors that grow along their slots in storage that doubles: a new row costs the same however many there are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Join = Literal["add", "max", "set"]

_IN_PLACE: dict[Join, Callable[[Tensor, Tensor], object]] = {
    "add": lambda region, values: region.add_(values),
    "max": lambda region, values: torch.maximum(region, values.to(region.dtype), out=region),
    "set": lambda region, values: region.copy_(values),
}


class Growing:
    """Numbers [B, H, slots, …] of the slots begin … end-1 of each dimension after the first two.

    Slots that nothing was written to hold `fill`. Storage is a tensor of at least that size, the slot `begin` first;
    it at least doubles where it must grow, so that n appended slots copy O(n) numbers in all. Values handed in are
    copied before they are changed.
    """

    __slots__ = ("_owned", "_storage", "begin", "end", "fill")

    def __init__(self, values: Tensor, begin: tuple[int, ...], fill: float = 0.0) -> None:
        self.begin = begin
        self.end = tuple(b + size for b, size in zip(begin, values.shape[2:], strict=True))
        self.fill = fill
        self._storage = values
        self._owned = False

    def live(self) -> Tensor:
        """What was written so far [B, H, end - begin, …]: a view, which later writing changes."""
        return self._cut(self.begin, self.end)

    def whole(self, *sizes: int) -> Tensor:
        """A copy [B, H, *sizes] of the slots from 0 on; those that nothing was written to hold `fill`."""
        whole = self._storage.new_full((*self._storage.shape[:2], *sizes), self.fill)
        stop = tuple(map(min, self.end, sizes))
        if all(b < s for b, s in zip(self.begin, stop, strict=True)):
            part = [slice(b, s) for b, s in zip(self.begin, stop, strict=True)]
            whole[(slice(None), slice(None), *part)] = self._cut(self.begin, stop)
        return whole

    def join(self, other: Growing, how: Join) -> Growing:
        """This with what another holds added, as the larger of the two, or in place of what was there. In place."""
        values = other.live()
        _IN_PLACE[how](self.region(other.begin, other.end), values)
        return self

    def region(self, begin: tuple[int, ...], end: tuple[int, ...]) -> Tensor:
        """The slots begin … end-1, to write to: a view of the storage, which grows to hold them."""
        first, last = tuple(map(min, self.begin, begin)), tuple(map(max, self.end, end))
        room = all(f + size >= e for f, size, e in zip(self.begin, self._storage.shape[2:], last, strict=True))
        if first != self.begin or not room or not self._owned:
            self._move(first, last)
        self.end = last
        return self._cut(begin, end)

    def _move(self, begin: tuple[int, ...], end: tuple[int, ...]) -> None:
        """Into storage of its own that holds begin … end-1, and as much again of each side that has outgrown it."""
        old = self._storage.shape[2:]
        need = [e - b for b, e in zip(begin, end, strict=True)]
        sizes = [size if size <= had else max(size, 2 * had) for size, had in zip(need, old, strict=True)]
        storage = self._storage.new_full((*self._storage.shape[:2], *sizes), self.fill)
        at = [slice(b - f, e - f) for f, b, e in zip(begin, self.begin, self.end, strict=True)]
        storage[(slice(None), slice(None), *at)] = self.live()
        self._storage, self._owned, self.begin = storage, True, begin

    def _cut(self, begin: tuple[int, ...], end: tuple[int, ...]) -> Tensor:
        part = self._storage
        for dim, (first, b, e) in enumerate(zip(self.begin, begin, end, strict=True), 2):
            if b != first or e - b != part.shape[dim]:
                part = part.narrow(dim, b - first, e - b)
        return part
