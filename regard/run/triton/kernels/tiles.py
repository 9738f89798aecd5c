"""Walking tiles: which tiles of keys a block of rows visits, how a tile is read, which of its cells are visible.

A tile is *full* when every row of the block sees every key of it; those need no masking. The others are *partial*.
Where rows have one interval each, both are intervals of tiles and follow from the rows' own bounds; else the host
lists them (`regard.run.triton.visible`).
"""

from __future__ import annotations

import triton
import triton.language as tl

from regard.run.triton.available import is_interpreted

INTERPRETED = tl.constexpr(is_interpreted())


@triton.jit
def product(a, b, c):
    """a b + c in float32, of float32 without rounding the factors (to TF32), of 2-byte types as they are.

    Triton's interpreter multiplies the bits of bfloat16 as integers; there both are widened first, which is exact.
    """
    if INTERPRETED:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, c, input_precision="ieee")


@triton.jit
def bounds_of(call, batch, head, rows):
    """Start and stop [rows] of rows with one interval; (0, 0) for those outside the call."""
    inside = (rows >= 0) & (rows < call.queries)
    at = rows.to(tl.int64)
    start = tl.load(call.start.at + batch * call.start.batch + head * call.start.head + at * call.start.row, inside, 0)
    stop = tl.load(call.stop.at + batch * call.stop.batch + head * call.stop.head + at * call.stop.row, inside, 0)
    return start, stop


@triton.jit
def tiles_of_rows(call, tiles, batch, head, block, rows, BLOCK_N: tl.constexpr, LISTED: tl.constexpr):
    """(list, first, first_full, num_full, num_partial): the tiles that a block of rows visits."""
    if LISTED:
        walk = listed_tiles(tiles, batch, head, block)
    else:
        walk = adjacent_tiles(call, batch, head, rows, BLOCK_N)
    return walk


@triton.jit
def adjacent_tiles(call, batch, head, rows, BLOCK_N: tl.constexpr):
    """The same from the bounds of rows with one interval each."""
    start, stop = bounds_of(call, batch, head, rows)
    inside = (rows >= 0) & (rows < call.queries)
    some = stop > start
    low = tl.min(tl.where(some, start, call.keys), 0)
    high = tl.max(tl.where(some, stop, 0), 0)
    first = low // BLOCK_N
    last = tl.maximum((high + BLOCK_N - 1) // BLOCK_N, first)
    first_full = (tl.max(start, 0) + BLOCK_N - 1) // BLOCK_N
    last_full = tl.min(tl.where(inside, stop, call.keys), 0) // BLOCK_N
    num_full = tl.maximum(last_full - first_full, 0)
    return call.start.at, first, first_full, num_full, last - first - num_full


@triton.jit
def listed_tiles(tiles, batch, head, block):
    """The same from the host's list of one block, be it of rows or of keys."""
    place = batch * tiles.batch + head * tiles.head + block
    num_full = tl.load(tiles.counts + place * 2)
    num_visited = tl.load(tiles.counts + place * 2 + 1)
    return tiles.order + place * tiles.length, 0, 0, num_full, num_visited - num_full


@triton.jit
def full_tile(walk, i, LISTED: tl.constexpr):
    """The i-th full tile of a walk."""
    if LISTED:
        tile = tl.load(walk[0] + i)
    else:
        tile = walk[2] + i
    return tile


@triton.jit
def partial_tile(walk, i, LISTED: tl.constexpr):
    """The i-th partial tile of a walk: those before the full ones, then those behind."""
    if LISTED:
        tile = tl.load(walk[0] + walk[3] + i)
    else:
        tile = walk[1] + i
        tile = tl.where((walk[3] > 0) & (tile >= walk[2]), tile + walk[3], tile)
    return tile


@triton.jit
def block_of(matrix, batch, head, rows, num_rows, WIDTH: tl.constexpr, PADDED: tl.constexpr, MASKED: tl.constexpr):
    """Rows [rows, PADDED] of a matrix, zeros beyond its width and, where MASKED, beyond its rows."""
    columns = tl.arange(0, PADDED)
    base = matrix.at + batch * matrix.batch + head * matrix.head
    place = base + rows.to(tl.int64)[:, None] * matrix.row + columns[None, :] * matrix.column
    if MASKED:
        inside = ((rows >= 0) & (rows < num_rows))[:, None] & (columns < WIDTH)[None, :]
        values = tl.load(place, inside, 0.0)
    elif WIDTH != PADDED:
        values = tl.load(place, (columns < WIDTH)[None, :], 0.0)
    else:
        values = tl.load(place)
    return values


@triton.jit
def store_block(matrix, batch, head, rows, num_rows, values, WIDTH: tl.constexpr, PADDED: tl.constexpr):
    """Write rows [rows, PADDED] in the matrix's own type."""
    columns = tl.arange(0, PADDED)
    base = matrix.at + batch * matrix.batch + head * matrix.head
    place = base + rows.to(tl.int64)[:, None] * matrix.row + columns[None, :] * matrix.column
    inside = ((rows >= 0) & (rows < num_rows))[:, None] & (columns < WIDTH)[None, :]
    tl.store(place, values.to(matrix.at.dtype.element_ty), inside)


@triton.jit
def visible_cells(call, batch, head, rows, keys):
    """bool [rows, keys]: which keys each row sees, by its intervals."""
    inside = (rows >= 0) & (rows < call.queries)
    at = rows.to(tl.int64)
    start = call.start.at + batch * call.start.batch + head * call.start.head + at * call.start.row
    stop = call.stop.at + batch * call.stop.batch + head * call.stop.head + at * call.stop.row
    seen = (rows[:, None] < 0) & (keys[None, :] < 0)
    for r in range(0, call.intervals):
        begin = tl.load(start + r * call.start.column, inside, 0)
        end = tl.load(stop + r * call.stop.column, inside, 0)
        seen = seen | ((keys[None, :] >= begin[:, None]) & (keys[None, :] < end[:, None]))
    return seen
