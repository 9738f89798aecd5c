"""Tile shapes by width: one small table per kernel, chosen for Hopper's 227 KiB of fast memory and 255 registers.

Nothing is tuned at run time, so the same call has the same bits on every run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

WIDEST = 512


@dataclass(frozen=True)
class Shape:
    """rows × keys tokens of a tile, warps that share it, and tiles in flight."""

    rows: int
    keys: int
    warps: int
    stages: int


Table = Mapping[int, tuple[Shape, ...]]

# by padded width: up to 64, 128, 256, 512; first for 2-byte elements, then for float32
FORWARD: Table = {
    2: (Shape(128, 64, 4, 3), Shape(128, 64, 8, 3), Shape(64, 64, 8, 2), Shape(32, 32, 8, 1)),
    4: (Shape(64, 64, 8, 2), Shape(64, 32, 8, 2), Shape(32, 32, 8, 1), Shape(16, 16, 8, 1)),
}
STATISTICS: Table = {
    2: (Shape(64, 64, 4, 3), Shape(64, 64, 4, 2), Shape(64, 64, 8, 2), Shape(32, 32, 8, 1)),
    4: (Shape(64, 64, 8, 2), Shape(64, 32, 8, 2), Shape(32, 32, 8, 1), Shape(16, 16, 8, 1)),
}
BACKWARD: Table = {
    2: (Shape(64, 64, 4, 3), Shape(64, 64, 8, 2), Shape(32, 32, 8, 2), Shape(16, 16, 8, 1)),
    4: (Shape(64, 64, 8, 1), Shape(32, 32, 8, 1), Shape(16, 16, 8, 1), Shape(16, 16, 8, 1)),
}

# rows are the heads that share a key-value head
DECODE: Table = {
    2: (Shape(0, 128, 4, 3), Shape(0, 64, 4, 3), Shape(0, 32, 4, 2), Shape(0, 32, 4, 2)),
    4: (Shape(0, 64, 4, 2), Shape(0, 64, 4, 2), Shape(0, 32, 4, 2), Shape(0, 16, 4, 1)),
}


def padded(width: int) -> int:
    """The power of two, 16 or more, that a width fits in."""
    return max(16, 1 << (width - 1).bit_length())


def shape_for(table: Table, width: int, dtype: torch.dtype) -> Shape:
    """The table's entry for the wider of a call's key and value widths."""
    place = (max(padded(width), 64) // 64).bit_length() - 1
    return table[dtype.itemsize][place]


def power_of_two(count: int) -> int:
    """The power of two, 1 or more, that a count fits in."""
    return 1 << max(0, count - 1).bit_length()
