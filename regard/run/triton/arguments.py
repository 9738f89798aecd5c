"""What kernels are handed: addresses with strides (in elements), and sizes. A kernel reads fields by name.

Nothing is copied to build these; a dimension that repeats (a mask shared by all heads) has stride 0.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

# Kinds of score terms, as kernels compare them.
SCALE, HEAD_SCALE, KEY_BIAS, SLOPE, DISTANCE, TABLE, SOFTCAP = range(7)


class Matrix(NamedTuple):
    """A tensor [batch, heads, rows, columns]."""

    at: Any
    batch: int
    head: int
    row: int
    column: int


class Line(NamedTuple):
    """A tensor [batch, heads, items]."""

    at: Any
    batch: int
    head: int
    item: int


class Term(NamedTuple):
    """A score term: a tensor [batch, heads, rows, columns] or None, a number (scale or cap), a reach (tokens)."""

    at: Any
    batch: int
    head: int
    row: int
    column: int
    number: float
    reach: int


class Tiles(NamedTuple):
    """Which tiles to visit: order int32 [batch, heads, blocks, length], full ones first, and how many of each.

    counts int32 [batch, heads, blocks, 2]: full tiles, and all that are visited.
    """

    order: Any
    counts: Any
    batch: int
    head: int
    length: int


class Call(NamedTuple):
    """One attention call. start, stop: the visible ranges [batch, heads, queries, intervals], int32.

    Positions are int32 [batch, tokens], from a common origin. to_log2: what turns a score into a power of two;
    unit: what turns it into a natural score.
    """

    q: Matrix
    k: Matrix
    v: Matrix
    start: Matrix
    stop: Matrix
    query_positions: Line
    key_positions: Line
    terms: tuple[Term, ...]
    heads: int
    shared: int
    queries: int
    keys: int
    intervals: int
    unit: float
    to_log2: float


class Pages(NamedTuple):
    """A pool of pages: how many there are, and elements from one to the next."""

    at: Any
    num_pages: int
    stride: int


class Cells(NamedTuple):
    """Partial results of a Pool, contiguous [batch, heads, rows, columns]: total float64, most float32."""

    total: Any
    most: Any
    rows: int
    columns: int


class Watch(NamedTuple):
    """What statistics read and where they write; None for what is not watched.

    key_scale [batch, heads, keys] and counted [batch, queries]. features, query_labels and key_labels hold one record
    after another in the place of heads. sums [records, rows of all heads]; mass [programs, keys] and bins [programs,
    bins] float64 are partial.
    """

    key_scale: Line
    counted: Line
    features: Line
    query_labels: Line
    key_labels: Line
    entropy: Any
    maximum: Any
    sums: Any
    rows: int
    top_weights: Any
    top_keys: Any
    mass: Any
    bins: Any
    pool: Cells


class Watched(NamedTuple):
    """What a statistics kernel is compiled for: flags, numbers of records, and the shifts of a Pool.

    row_shift and key_side are those of a cell within one tile, key_shift that of the whole cell.
    """

    scaled: bool
    counted: bool
    entropy: bool
    maximum: bool
    features: int
    matches: int
    distance: int
    top: int
    columns: bool
    bins: int
    pool: bool
    row_shift: int
    key_shift: int
    key_side: int


def matrix(tensor: Tensor | None) -> Matrix:
    """A tensor of four dimensions as it lies."""
    return Matrix(None, 0, 0, 0, 0) if tensor is None else Matrix(tensor, *tensor.stride())


def line(tensor: Tensor | None) -> Line:
    """A tensor of three dimensions as it lies."""
    return Line(None, 0, 0, 0) if tensor is None else Line(tensor, *tensor.stride())


def line_of_tokens(tensor: Tensor | None) -> Line:
    """A tensor [batch, tokens], the same for all heads."""
    return Line(None, 0, 0, 0) if tensor is None else Line(tensor, tensor.stride(0), 0, tensor.stride(1))
