"""Statistics of the exact weights, in one walk: each tile's weights are computed again from the rows' two numbers,

    a_ij = e^((s_ij - row_max_i) - row_log_sum_i),

shown to every statistic that is watched, and gone. A program walks every S-th block of rows of one head, so what is
summed over rows has S partial results in a fixed order, and no program writes where another does.
"""

from __future__ import annotations

import triton
import triton.language as tl

from regard.run.triton.kernels.scores import LN2, distances, powers, scored
from regard.run.triton.kernels.tiles import block_of, full_tile, partial_tile, product, tiles_of_rows, visible_cells

NO_KEY = tl.constexpr(2147483647)


@triton.jit
def weights_of_tile(
    q, tile, call, batch, head, rows, counted, row_max, row_log_sum, key_scale,
    TERMS: tl.constexpr, SCALED: tl.constexpr, BLOCK_N: tl.constexpr, MASKED: tl.constexpr,
    WIDTH: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    """(a, log2 a, seen) [rows, keys] of one tile, times the key scale where there is one; 0 where unseen."""
    keys = tile * BLOCK_N + tl.arange(0, BLOCK_N)
    k = block_of(call.k, batch, head // call.shared, keys, call.keys, WIDTH, PADDED, MASKED)
    score, _ = scored(product(q, k.T, None), call, batch, head, rows, keys, TERMS, False)
    seen = counted[:, None] & (keys < call.keys)[None, :]
    if MASKED:
        seen = seen & visible_cells(call, batch, head, rows, keys)
    power = powers(score, seen, call, row_max, row_log_sum)
    weight = tl.exp2(power)
    if SCALED:
        place = key_scale.at + batch * key_scale.batch + head * key_scale.head + keys * key_scale.item
        weight = tl.where(seen, weight * tl.load(place, keys < call.keys, 0.0)[None, :], 0.0)
    return weight, power, seen


@triton.jit
def bin_of(distance):
    """0 for 0, else 1 + ⌊log2 d⌋, from the exponent of a float64, which holds every int32 exactly."""
    bits = tl.maximum(distance, 1).to(tl.float64).to(tl.int64, bitcast=True)
    return tl.where(distance == 0, 0, (bits >> 52).to(tl.int32) - 1022)


@triton.jit
def add_histogram(bins, weight, apart, BINS: tl.constexpr, BINS_PADDED: tl.constexpr):
    """Add a tile's weights to float64 [bins] by log2 of the distance. Far tiles fall into one or two bins."""
    place = tl.arange(0, BINS_PADDED)
    nearest = tl.min(tl.min(apart, 1), 0)
    farthest = tl.max(tl.max(apart, 1), 0)
    for bin in range(tl.minimum(bin_of(nearest), BINS - 1), tl.minimum(bin_of(farthest), BINS - 1) + 1):
        low = (1 << bin) >> 1
        high = tl.where(bin == BINS - 1, NO_KEY, 1 << bin)
        mass = tl.sum(tl.sum(tl.where((apart >= low) & (apart < high), weight, 0.0), 1), 0)
        bins += tl.where(place == bin, mass.to(tl.float64), 0.0)
    return bins


@triton.jit
def add_strongest(best, best_key, weight, keys, TOP: tl.constexpr):
    """Keep the strongest weights [rows, places], in no order; of equal ones the lower key.

    Each round puts every row's strongest newcomer in place of its weakest; as many rounds as some row needs.
    """
    place = tl.arange(0, best.shape[1])[None, :]
    worst, worst_key = weakest(best, best_key)
    key = tl.broadcast_to(keys[None, :], weight.shape)
    better = (weight > worst[:, None]) | ((weight == worst[:, None]) & (key < worst_key[:, None]))
    rest = tl.where(better & (weight > 0.0), weight, 0.0)
    rounds = tl.minimum(tl.max(tl.sum((rest > 0.0).to(tl.int32), 1), 0), TOP)
    for _ in range(0, rounds):
        worst, worst_key = weakest(best, best_key)
        new = tl.max(rest, 1)
        new_key = tl.min(tl.where((rest == new[:, None]) & (rest > 0.0), key, NO_KEY), 1)
        enters = (new > worst) | ((new == worst) & (new_key < worst_key) & (new > 0.0))
        there = (best == worst[:, None]) & (best_key == worst_key[:, None]) & enters[:, None] & (place < TOP)
        best = tl.where(there, new[:, None], best)
        best_key = tl.where(there, new_key[:, None], best_key)
        rest = tl.where(key == new_key[:, None], 0.0, rest)
    return best, best_key


@triton.jit
def weakest(best, best_key):
    """(weight, key) of the place that goes first: the smallest weight, of equal ones the highest key."""
    weight = tl.min(best, 1)
    return weight, tl.max(tl.where(best == weight[:, None], best_key, -NO_KEY), 1)


@triton.jit
def store_strongest(weights_at, keys_at, place, inside, best, best_key, TOP: tl.constexpr):
    """Write [rows, TOP] with the largest first and the lower key first among equal ones; unused places 0 and -1."""
    column = tl.arange(0, best.shape[1])[None, :]
    left = tl.where(column < TOP, best, -1.0)
    for n in tl.static_range(TOP):
        largest = tl.max(left, 1)
        key = tl.min(tl.where(left == largest[:, None], best_key, NO_KEY), 1)
        tl.store(weights_at + place * TOP + n, tl.maximum(largest, 0.0), inside)
        tl.store(keys_at + place * TOP + n, tl.where(largest > 0.0, key, -1), inside)
        left = tl.where((left == largest[:, None]) & (best_key == key[:, None]), -1.0, left)


@triton.jit
def add_pool(
    pool, weight, batch_head, block, tile,
    ROW_SHIFT: tl.constexpr, KEY_SHIFT: tl.constexpr, SIDE: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Sum and maximum of a tile's cells of 2^ROW_SHIFT rows × 2^SIDE keys, both at most a tile's side.

    Where cells are wider than a tile (KEY_SHIFT > SIDE), its one column is added to what earlier tiles of the same
    program left there.
    """
    ROWS: tl.constexpr = BLOCK_M >> ROW_SHIFT
    COLUMNS: tl.constexpr = BLOCK_N >> SIDE
    cells = tl.reshape(weight, [ROWS, 1 << ROW_SHIFT, COLUMNS, 1 << SIDE])
    total = tl.sum(tl.sum(cells, 3), 1).to(tl.float64)
    most = tl.max(tl.max(cells, 3), 1)
    row = block * ROWS + tl.arange(0, ROWS)
    column = ((tile * BLOCK_N) >> KEY_SHIFT) + tl.arange(0, COLUMNS)
    place = (batch_head * pool.rows + row)[:, None] * pool.columns + column[None, :]
    inside = (row < pool.rows)[:, None] & (column < pool.columns)[None, :]
    if SIDE != KEY_SHIFT:
        tl.debug_barrier()
        total += tl.load(pool.total + place, inside, 0.0)
        most = tl.maximum(most, tl.load(pool.most + place, inside, 0.0))
    tl.store(pool.total + place, total, inside)
    tl.store(pool.most + place, most, inside)


@triton.jit
def add_tile(
    state, q, tile, block, partial, call, watch, batch, head, rows, counted, row_max, row_log_sum,
    TERMS: tl.constexpr, WATCHED: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, MASKED: tl.constexpr,
    WIDTH: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    """One tile of weights, shown to everything that is watched."""
    FEATURES: tl.constexpr = WATCHED.features
    MATCHES: tl.constexpr = WATCHED.matches
    entropy, maximum, sums, best, best_key, bins = state
    keys = tile * BLOCK_N + tl.arange(0, BLOCK_N)
    weight, power, seen = weights_of_tile(
        q, tile, call, batch, head, rows, counted, row_max, row_log_sum, watch.key_scale,
        TERMS, WATCHED.scaled, BLOCK_N, MASKED, WIDTH, PADDED,
    )  # fmt: skip
    column = tl.arange(0, sums.shape[1])[None, :]
    if WATCHED.entropy:
        entropy -= tl.sum(weight * tl.where(weight > 0.0, power, 0.0), 1)
    if WATCHED.maximum:
        maximum = tl.maximum(maximum, tl.max(weight, 1))
    for n in tl.static_range(FEATURES):
        feature = tl.load(watch.features.at + n * watch.features.head + batch * watch.features.batch + keys,
                          keys < call.keys, 0.0)  # fmt: skip
        sums += tl.where(column == n, tl.sum(tl.where(seen, weight * feature[None, :], 0.0), 1)[:, None], 0.0)
    for n in tl.static_range(MATCHES):
        own = tl.load(watch.query_labels.at + n * watch.query_labels.head + batch * watch.query_labels.batch + rows,
                      (rows >= 0) & (rows < call.queries), 0)  # fmt: skip
        other = tl.load(watch.key_labels.at + n * watch.key_labels.head + batch * watch.key_labels.batch + keys,
                        keys < call.keys, 0)  # fmt: skip
        mass = tl.sum(tl.where(own[:, None] == other[None, :], weight, 0.0), 1)
        sums += tl.where(column == FEATURES + n, mass[:, None], 0.0)
    if WATCHED.distance or WATCHED.bins > 0:
        apart = tl.abs(distances(call, batch, rows, keys))
    if WATCHED.distance:
        mean = tl.sum(weight * apart.to(tl.float32), 1)
        sums += tl.where(column == FEATURES + MATCHES, mean[:, None], 0.0)
    if WATCHED.bins > 0:
        # Cells outside the call count as near ones, so that they do not ask for more bins.
        bins = add_histogram(bins, weight, tl.where(seen, apart, tl.min(tl.min(tl.where(seen, apart, NO_KEY), 1), 0)),
                             WATCHED.bins, bins.shape[0])  # fmt: skip
    if WATCHED.top > 0:
        best, best_key = add_strongest(best, best_key, weight, keys, WATCHED.top)
    if WATCHED.columns:
        place = watch.mass + partial * call.keys + keys
        mass = tl.load(place, keys < call.keys, 0.0) + tl.sum(weight, 0).to(tl.float64)
        tl.store(place, mass, keys < call.keys)
    if WATCHED.pool:
        add_pool(watch.pool, weight, batch * call.heads + head, block, tile,
                 WATCHED.row_shift, WATCHED.key_shift, WATCHED.key_side, BLOCK_M, BLOCK_N)  # fmt: skip
    return entropy, maximum, sums, best, best_key, bins


@triton.jit
def statistics_kernel(
    call, tiles, watch, row_max_at, row_log_sum_at, num_blocks, num_slices, lead,
    TERMS: tl.constexpr, LISTED: tl.constexpr, WATCHED: tl.constexpr,
    SUMS: tl.constexpr, PLACES: tl.constexpr, BINS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    """Every num_slices-th block of rows of one head. The first block starts `lead` rows before the first row."""
    NUM_SUMS: tl.constexpr = WATCHED.features + WATCHED.matches + WATCHED.distance
    program = tl.program_id(0)
    slice = program % num_slices
    batch = (program // num_slices // call.heads).to(tl.int64)
    head = (program // num_slices % call.heads).to(tl.int64)
    batch_head = batch * call.heads + head
    partial = batch_head * num_slices + slice
    bins = tl.zeros([BINS], tl.float64)
    for block in range(slice, num_blocks, num_slices):
        rows = block * BLOCK_M + tl.arange(0, BLOCK_M) - lead
        inside = (rows >= 0) & (rows < call.queries)
        place = batch_head * call.queries + rows
        row_max = tl.load(row_max_at + place, inside, 0.0)
        row_log_sum = tl.load(row_log_sum_at + place, inside, 0.0)
        counted = inside
        if WATCHED.counted:
            flags = watch.counted.at + batch * watch.counted.batch + rows * watch.counted.item
            counted = inside & (tl.load(flags, inside, 0) != 0)
        q = block_of(call.q, batch, head, rows, call.queries, WIDTH, PADDED, True)
        entropy = tl.zeros([BLOCK_M], tl.float32)
        maximum = tl.zeros([BLOCK_M], tl.float32)
        sums = tl.zeros([BLOCK_M, SUMS], tl.float32)
        empty = tl.arange(0, PLACES)[None, :] + tl.zeros([BLOCK_M, 1], tl.int32)
        best = tl.where(empty < WATCHED.top, 0.0, float("inf"))
        best_key = -1 - empty
        walk = tiles_of_rows(call, tiles, batch, head, block, rows, BLOCK_N, LISTED)
        for i in range(0, walk[3]):
            entropy, maximum, sums, best, best_key, bins = add_tile(
                (entropy, maximum, sums, best, best_key, bins), q, full_tile(walk, i, LISTED), block, partial,
                call, watch, batch, head, rows, counted, row_max, row_log_sum,
                TERMS, WATCHED, BLOCK_M, BLOCK_N, False, WIDTH, PADDED,
            )  # fmt: skip
        for i in range(0, walk[4]):
            entropy, maximum, sums, best, best_key, bins = add_tile(
                (entropy, maximum, sums, best, best_key, bins), q, partial_tile(walk, i, LISTED), block, partial,
                call, watch, batch, head, rows, counted, row_max, row_log_sum,
                TERMS, WATCHED, BLOCK_M, BLOCK_N, True, WIDTH, PADDED,
            )  # fmt: skip
        if WATCHED.entropy:
            tl.store(watch.entropy + place, entropy * LN2, inside)
        if WATCHED.maximum:
            tl.store(watch.maximum + place, maximum, inside)
        column = tl.arange(0, SUMS)[None, :]
        for n in tl.static_range(NUM_SUMS):
            tl.store(watch.sums + n * watch.rows + place, tl.sum(tl.where(column == n, sums, 0.0), 1), inside)
        if WATCHED.top > 0:
            store_strongest(watch.top_weights, watch.top_keys, place, inside, best, best_key, WATCHED.top)
        # The next block adds to the same column sums: all threads must see what all others wrote.
        tl.debug_barrier()
    if WATCHED.bins > 0:
        places = tl.arange(0, BINS)
        tl.store(watch.bins + partial * WATCHED.bins + places, bins, places < WATCHED.bins)
