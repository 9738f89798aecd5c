"""The output, and the two numbers per row from which weights are computed again.

    s_ij = terms(q_i · k_j),  m_i = max_j s_ij,  l_i = Σ_j e^(s_ij - m_i),  o_i = Σ_j e^(s_ij - m_i) v_j / l_i

in one walk over the tiles that a block of rows sees, rescaling when the maximum grows (Dao 2023, "FlashAttention-2";
Milakov and Gimelshein 2018, "Online normalizer calculation for softmax"). Powers are of two, as the hardware has them.
"""

from __future__ import annotations

import triton
import triton.language as tl

from regard.run.triton.kernels.scores import row_exponent, scored
from regard.run.triton.kernels.tiles import (
    block_of,
    full_tile,
    partial_tile,
    product,
    store_block,
    tiles_of_rows,
    visible_cells,
)


@triton.jit
def absorb_tile(
    state, q, tile, call, batch, head, rows,
    TERMS: tl.constexpr, OUTPUT: tl.constexpr, BLOCK_N: tl.constexpr, MASKED: tl.constexpr,
    WIDTH: tl.constexpr, PADDED: tl.constexpr, VALUE_WIDTH: tl.constexpr, VALUE_PADDED: tl.constexpr,
):  # fmt: skip
    """m' = max(m, max_j s_j);  p_j = e^(s_j - m');  l ← e^(m - m') l + Σ p_j;  o ← e^(m - m') o + Σ p_j v_j."""
    peak, total, mixed = state
    keys = tile * BLOCK_N + tl.arange(0, BLOCK_N)
    shared = head // call.shared
    k = block_of(call.k, batch, shared, keys, call.keys, WIDTH, PADDED, MASKED)
    score, _ = scored(product(q, k.T, None), call, batch, head, rows, keys, TERMS, False)
    if MASKED:
        seen = visible_cells(call, batch, head, rows, keys)
        score = tl.where(seen, score, -float("inf"))
    higher = tl.maximum(peak, tl.max(score, 1))
    exponent = row_exponent(higher * call.unit)
    p = tl.exp2(score * call.to_log2 - exponent[:, None])
    shrink = tl.where(peak == -float("inf"), 0.0, tl.exp2(row_exponent(peak * call.unit) - exponent))
    total = total * shrink + tl.sum(p, 1)
    if OUTPUT:
        v = block_of(call.v, batch, shared, keys, call.keys, VALUE_WIDTH, VALUE_PADDED, MASKED)
        if MASKED:
            # A key that none of these rows sees may hold NaN, and 0 · NaN is NaN.
            v = tl.where((tl.max(seen.to(tl.int32), 0) > 0)[:, None], v, 0.0)
        mixed = product(p.to(v.dtype), v, mixed * shrink[:, None])
    return higher, total, mixed


@triton.jit
def finished(peak, total, unit, sink, SINK: tl.constexpr):
    """(row_max, row_log_sum, factor) of rows: the factor turns Σ e^(s - m) v into the output. Nothing seen: zeros.

    With a sink, Σ = l + e^(sink - m), computed from logarithms, since sink - m may be far beyond what e^x can hold.
    """
    empty = (peak == -float("inf")) & (total == 0.0)
    safe = tl.where(empty, 1.0, total)
    row_max = tl.where(empty, -float("inf"), peak * unit)
    log_sum = tl.log(safe)
    factor = 1.0 / safe
    if SINK:
        extra = sink - tl.where(empty, 0.0, row_max)
        larger = tl.maximum(log_sum, extra)
        with_sink = larger + tl.log(tl.exp(log_sum - larger) + tl.exp(extra - larger))
        factor = factor * tl.exp(log_sum - with_sink)
        log_sum = with_sink
    return row_max, tl.where(empty, 0.0, log_sum), tl.where(empty, 0.0, factor)


@triton.jit
def forward_kernel(
    call, tiles, out, row_max_at, row_log_sum_at, sink_at, num_blocks,
    TERMS: tl.constexpr, LISTED: tl.constexpr, OUTPUT: tl.constexpr, SINK: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    WIDTH: tl.constexpr, PADDED: tl.constexpr, VALUE_WIDTH: tl.constexpr, VALUE_PADDED: tl.constexpr,
):  # fmt: skip
    """One block of rows of one head. The last blocks, longest under a causal mask, start first."""
    program = tl.program_id(0)
    block = num_blocks - 1 - program % num_blocks
    batch = (program // num_blocks // call.heads).to(tl.int64)
    head = (program // num_blocks % call.heads).to(tl.int64)
    rows = block * BLOCK_M + tl.arange(0, BLOCK_M)
    q = block_of(call.q, batch, head, rows, call.queries, WIDTH, PADDED, True)
    peak = tl.full([BLOCK_M], -float("inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    mixed = tl.zeros([BLOCK_M, VALUE_PADDED], tl.float32)
    walk = tiles_of_rows(call, tiles, batch, head, block, rows, BLOCK_N, LISTED)
    for i in range(0, walk[3]):
        peak, total, mixed = absorb_tile(
            (peak, total, mixed), q, full_tile(walk, i, LISTED), call, batch, head, rows,
            TERMS, OUTPUT, BLOCK_N, False, WIDTH, PADDED, VALUE_WIDTH, VALUE_PADDED,
        )  # fmt: skip
    for i in range(0, walk[4]):
        peak, total, mixed = absorb_tile(
            (peak, total, mixed), q, partial_tile(walk, i, LISTED), call, batch, head, rows,
            TERMS, OUTPUT, BLOCK_N, True, WIDTH, PADDED, VALUE_WIDTH, VALUE_PADDED,
        )  # fmt: skip
    sink = 0.0
    if SINK:
        sink = tl.load(sink_at + head)
    row_max, row_log_sum, factor = finished(peak, total, call.unit, sink, SINK)
    place = (batch * call.heads + head) * call.queries + rows
    tl.store(row_max_at + place, row_max, rows < call.queries)
    tl.store(row_log_sum_at + place, row_log_sum, rows < call.queries)
    if OUTPUT:
        store_block(out, batch, head, rows, call.queries, mixed * factor[:, None], VALUE_WIDTH, VALUE_PADDED)
