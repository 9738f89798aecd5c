"""Gradients of queries, keys and values (Dao 2023, "FlashAttention-2", section 3.1; Milakov and Gimelshein 2018).

With a_ij computed again from the rows' state, do_i the gradient of the output and δ_i = Σ_d do_id o_id:

    dv_j = Σ_i a_ij do_i,   ds_ij = a_ij (do_i · v_j - δ_i),   dq_i = Σ_j c_ij ds_ij k_j,   dk_j = Σ_i c_ij ds_ij q_i

where c_ij = ∂s_ij / ∂(q_i · k_j): the scale, times 1 - tanh² for a softcap. A sink needs no term of its own, since
δ_i = Σ_j a_ij (do_i · v_j) holds with one too. Each sum is made by one program in a fixed order.
"""

from __future__ import annotations

import triton
import triton.language as tl

from regard.run.triton.kernels.scores import HEAD_SCALE, powers, scored
from regard.run.triton.kernels.tiles import (
    block_of,
    full_tile,
    listed_tiles,
    partial_tile,
    product,
    store_block,
    tiles_of_rows,
    visible_cells,
)


@triton.jit
def scale_of(call, head, TERMS: tl.constexpr):
    """The scale of q · k."""
    if len(TERMS) == 0:
        scale = call.unit
    elif TERMS[0] == HEAD_SCALE:
        scale = tl.load(call.terms[0].at + head * call.terms[0].head)
    else:
        scale = call.terms[0].number
    return scale


@triton.jit
def delta_kernel(
    out, grad_out, delta_at, heads, queries, num_blocks,
    BLOCK_M: tl.constexpr, VALUE_WIDTH: tl.constexpr, VALUE_PADDED: tl.constexpr,
):  # fmt: skip
    """δ_i = Σ_d do_id o_id."""
    program = tl.program_id(0)
    batch = (program // num_blocks // heads).to(tl.int64)
    head = (program // num_blocks % heads).to(tl.int64)
    rows = program % num_blocks * BLOCK_M + tl.arange(0, BLOCK_M)
    o = block_of(out, batch, head, rows, queries, VALUE_WIDTH, VALUE_PADDED, True).to(tl.float32)
    do = block_of(grad_out, batch, head, rows, queries, VALUE_WIDTH, VALUE_PADDED, True).to(tl.float32)
    tl.store(delta_at + (batch * heads + head) * queries + rows, tl.sum(o * do, 1), rows < queries)


@triton.jit
def gradients_of_tile(
    q, k, v, do, delta, row_max, row_log_sum, seen, scale, call, batch, head, rows, keys,
    TERMS: tl.constexpr,
):  # fmt: skip
    """(a, c · ds) [rows, keys] float32, 0 where unseen."""
    score, slope = scored(product(q, k.T, None), call, batch, head, rows, keys, TERMS, True)
    weight = tl.exp2(powers(score, seen, call, row_max, row_log_sum))
    grad = weight * (product(do, v.T, None) - delta[:, None])
    return weight, tl.where(seen, grad * slope * scale, 0.0)


@triton.jit
def add_to_queries(
    grad_q, q, do, delta, row_max, row_log_sum, scale, tile, call, batch, head, rows,
    TERMS: tl.constexpr, BLOCK_N: tl.constexpr, MASKED: tl.constexpr,
    WIDTH: tl.constexpr, PADDED: tl.constexpr, VALUE_WIDTH: tl.constexpr, VALUE_PADDED: tl.constexpr,
):  # fmt: skip
    """dq_i += Σ_j c_ij ds_ij k_j over one tile of keys."""
    keys = tile * BLOCK_N + tl.arange(0, BLOCK_N)
    group = head // call.shared
    k = block_of(call.k, batch, group, keys, call.keys, WIDTH, PADDED, MASKED)
    v = block_of(call.v, batch, group, keys, call.keys, VALUE_WIDTH, VALUE_PADDED, MASKED)
    seen = (rows < call.queries)[:, None] & (keys < call.keys)[None, :]
    if MASKED:
        seen = seen & visible_cells(call, batch, head, rows, keys)
        some = (tl.max(seen.to(tl.int32), 0) > 0)[:, None]
        k, v = tl.where(some, k, 0.0), tl.where(some, v, 0.0)
    _, grad = gradients_of_tile(
        q, k, v, do, delta, row_max, row_log_sum, seen, scale, call, batch, head, rows, keys, TERMS
    )
    return product(grad.to(k.dtype), k, grad_q)


@triton.jit
def queries_kernel(
    call, tiles, grad_out, delta_at, row_max_at, row_log_sum_at, grad_q_at, num_blocks,
    TERMS: tl.constexpr, LISTED: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    WIDTH: tl.constexpr, PADDED: tl.constexpr, VALUE_WIDTH: tl.constexpr, VALUE_PADDED: tl.constexpr,
):  # fmt: skip
    """dq of one block of rows of one head."""
    program = tl.program_id(0)
    block = num_blocks - 1 - program % num_blocks
    batch = (program // num_blocks // call.heads).to(tl.int64)
    head = (program // num_blocks % call.heads).to(tl.int64)
    rows = block * BLOCK_M + tl.arange(0, BLOCK_M)
    place = (batch * call.heads + head) * call.queries + rows
    q = block_of(call.q, batch, head, rows, call.queries, WIDTH, PADDED, True)
    do = block_of(grad_out, batch, head, rows, call.queries, VALUE_WIDTH, VALUE_PADDED, True)
    delta = tl.load(delta_at + place, rows < call.queries, 0.0)
    row_max = tl.load(row_max_at + place, rows < call.queries, 0.0)
    row_log_sum = tl.load(row_log_sum_at + place, rows < call.queries, 0.0)
    scale = scale_of(call, head, TERMS)
    grad_q = tl.zeros([BLOCK_M, PADDED], tl.float32)
    walk = tiles_of_rows(call, tiles, batch, head, block, rows, BLOCK_N, LISTED)
    for i in range(0, walk[3]):
        grad_q = add_to_queries(
            grad_q, q, do, delta, row_max, row_log_sum, scale, full_tile(walk, i, LISTED), call, batch, head, rows,
            TERMS, BLOCK_N, False, WIDTH, PADDED, VALUE_WIDTH, VALUE_PADDED,
        )  # fmt: skip
    for i in range(0, walk[4]):
        grad_q = add_to_queries(
            grad_q, q, do, delta, row_max, row_log_sum, scale, partial_tile(walk, i, LISTED), call, batch, head, rows,
            TERMS, BLOCK_N, True, WIDTH, PADDED, VALUE_WIDTH, VALUE_PADDED,
        )  # fmt: skip
    store_block(grad_q_at, batch, head, rows, call.queries, grad_q, WIDTH, PADDED)


@triton.jit
def add_to_keys(
    grad_k, grad_v, k, v, grad_out, delta_at, row_max_at, row_log_sum_at, scale, block, call, batch, head, keys,
    TERMS: tl.constexpr, BLOCK_M: tl.constexpr, MASKED: tl.constexpr,
    WIDTH: tl.constexpr, PADDED: tl.constexpr, VALUE_WIDTH: tl.constexpr, VALUE_PADDED: tl.constexpr,
):  # fmt: skip
    """dv_j += Σ_i a_ij do_i and dk_j += Σ_i c_ij ds_ij q_i over one block of rows of one head."""
    rows = block * BLOCK_M + tl.arange(0, BLOCK_M)
    place = (batch * call.heads + head) * call.queries + rows
    q = block_of(call.q, batch, head, rows, call.queries, WIDTH, PADDED, True)
    do = block_of(grad_out, batch, head, rows, call.queries, VALUE_WIDTH, VALUE_PADDED, True)
    delta = tl.load(delta_at + place, rows < call.queries, 0.0)
    row_max = tl.load(row_max_at + place, rows < call.queries, 0.0)
    row_log_sum = tl.load(row_log_sum_at + place, rows < call.queries, 0.0)
    seen = (rows < call.queries)[:, None] & (keys < call.keys)[None, :]
    if MASKED:
        seen = seen & visible_cells(call, batch, head, rows, keys)
        some = (tl.max(seen.to(tl.int32), 1) > 0)[:, None]
        q, do = tl.where(some, q, 0.0), tl.where(some, do, 0.0)
        delta = tl.where(tl.max(seen.to(tl.int32), 1) > 0, delta, 0.0)
    weight, grad = gradients_of_tile(
        q, k, v, do, delta, row_max, row_log_sum, seen, scale, call, batch, head, rows, keys, TERMS
    )
    grad_v = product(weight.to(do.dtype).T, do, grad_v)
    grad_k = product(grad.to(q.dtype).T, q, grad_k)
    return grad_k, grad_v


@triton.jit
def keys_kernel(
    call, tiles, grad_out, delta_at, row_max_at, row_log_sum_at, grad_k_at, grad_v_at, num_tiles,
    TERMS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    WIDTH: tl.constexpr, PADDED: tl.constexpr, VALUE_WIDTH: tl.constexpr, VALUE_PADDED: tl.constexpr,
):  # fmt: skip
    """dk and dv of one tile of keys of one key-value head, summed over the query heads that share it, in order."""
    program = tl.program_id(0)
    groups = call.heads // call.shared
    tile = program % num_tiles
    batch = (program // num_tiles // groups).to(tl.int64)
    group = (program // num_tiles % groups).to(tl.int64)
    keys = tile * BLOCK_N + tl.arange(0, BLOCK_N)
    k = block_of(call.k, batch, group, keys, call.keys, WIDTH, PADDED, True)
    v = block_of(call.v, batch, group, keys, call.keys, VALUE_WIDTH, VALUE_PADDED, True)
    grad_k = tl.zeros([BLOCK_N, PADDED], tl.float32)
    grad_v = tl.zeros([BLOCK_N, VALUE_PADDED], tl.float32)
    for member in range(0, call.shared):
        head = group * call.shared + member
        scale = scale_of(call, head, TERMS)
        walk = listed_tiles(tiles, batch, head, tile)
        for i in range(0, walk[3]):
            grad_k, grad_v = add_to_keys(
                grad_k, grad_v, k, v, grad_out, delta_at, row_max_at, row_log_sum_at, scale,
                full_tile(walk, i, True), call, batch, head, keys,
                TERMS, BLOCK_M, False, WIDTH, PADDED, VALUE_WIDTH, VALUE_PADDED,
            )  # fmt: skip
        for i in range(0, walk[4]):
            grad_k, grad_v = add_to_keys(
                grad_k, grad_v, k, v, grad_out, delta_at, row_max_at, row_log_sum_at, scale,
                partial_tile(walk, i, True), call, batch, head, keys,
                TERMS, BLOCK_M, True, WIDTH, PADDED, VALUE_WIDTH, VALUE_PADDED,
            )  # fmt: skip
    store_block(grad_k_at, batch, group, keys, call.keys, grad_k, WIDTH, PADDED)
    store_block(grad_v_at, batch, group, keys, call.keys, grad_v, VALUE_WIDTH, VALUE_PADDED)
