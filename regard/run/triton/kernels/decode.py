"""Decoding from pages: one new query per sequence, its keys read page by page, once for all heads that share them.

A sequence is cut every SPLIT tokens, counted from its own first token, so that one long sequence fills the GPU and a
result does not depend on the batch. Each split leaves (m, l, o); a second kernel joins them in order:

    m = max_s m_s,  l = Σ_s e^(m_s - m) l_s,  o = Σ_s e^(m_s - m) o_s / l

(Dao 2023, "Flash-Decoding for long-context inference"; pages after Kwon 2023, "Efficient Memory Management for Large
Language Model Serving with PagedAttention"). Page offsets are 64-bit: a pool may be larger than 2^31 bytes.
"""

from __future__ import annotations

import triton
import triton.language as tl

from regard.run.triton.kernels.forward import finished
from regard.run.triton.kernels.scores import LOG2E, row_exponent
from regard.run.triton.kernels.tiles import product


@triton.jit
def places_of(pages, table_at, tokens, stop, PAGE: tl.constexpr):
    """int64: where each token's page begins; a table entry outside the pool reads page 0.

    Nothing behind a sequence's last page is looked up. All of this is constant within a page, so that the compiler
    sees whole runs of tokens.
    """
    place = tokens // PAGE
    page = tl.load(table_at + place, place * PAGE < stop, 0)
    page = tl.where((page >= 0) & (page < pages.num_pages), page, 0)
    return page.to(tl.int64) * pages.stride


@triton.jit
def absorb_tokens(
    state, query, begin, start, stop, key_pages, value_pages, table_at, group, scale,
    PAGE: tl.constexpr, BLOCK_N: tl.constexpr, MASKED: tl.constexpr,
    WIDTH: tl.constexpr, PADDED: tl.constexpr, VALUE_WIDTH: tl.constexpr, VALUE_PADDED: tl.constexpr,
):  # fmt: skip
    """m' = max(m, max_j s_j);  p_j = e^(s_j - m');  l ← e^(m - m') l + Σ p_j;  o ← e^(m - m') o + Σ p_j v_j."""
    peak, total, mixed = state
    tokens = tl.multiple_of(begin, BLOCK_N) + tl.arange(0, BLOCK_N)
    feature, value = tl.arange(0, PADDED), tl.arange(0, VALUE_PADDED)
    slot = tokens % PAGE
    seen = (tokens >= start) & (tokens < stop)
    of_key = places_of(key_pages, table_at, tokens, stop, PAGE) + group * (WIDTH * PAGE) + slot
    of_key = key_pages.at + of_key[None, :] + feature[:, None] * PAGE
    of_value = places_of(value_pages, table_at, tokens, stop, PAGE) + (group * PAGE + slot) * VALUE_WIDTH
    of_value = value_pages.at + of_value[:, None] + value[None, :]
    if MASKED:
        k = tl.load(of_key, seen[None, :] & (feature < WIDTH)[:, None], 0.0)
        v = tl.load(of_value, seen[:, None] & (value < VALUE_WIDTH)[None, :], 0.0)
    else:
        k = tl.load(of_key, (feature < WIDTH)[:, None], 0.0)
        v = tl.load(of_value, (value < VALUE_WIDTH)[None, :], 0.0)
    score = product(query, k, None) * scale
    if MASKED:
        score = tl.where(seen[None, :], score, -float("inf"))
    higher = tl.maximum(peak, tl.max(score, 1))
    exponent = row_exponent(higher)
    p = tl.exp2(score * LOG2E - exponent[:, None])
    shrink = tl.where(peak == -float("inf"), 0.0, tl.exp2(row_exponent(peak) - exponent))
    total = total * shrink + tl.sum(p, 1)
    mixed = product(p.to(v.dtype), v, mixed * shrink[:, None])
    return higher, total, mixed


@triton.jit
def split_kernel(
    q, key_pages, value_pages, table_at, table_stride, lengths_at, starts_at,
    peaks_at, totals_at, mixed_at, heads, shared, scale, num_splits,
    WINDOWED: tl.constexpr, ROWS: tl.constexpr, SPLIT: tl.constexpr, PAGE: tl.constexpr, BLOCK_N: tl.constexpr,
    WIDTH: tl.constexpr, PADDED: tl.constexpr, VALUE_WIDTH: tl.constexpr, VALUE_PADDED: tl.constexpr,
):  # fmt: skip
    """One split of one sequence for the heads of one key-value head; what it cannot see it neither reads nor writes."""
    program = tl.program_id(0)
    groups = heads // shared
    split = program % num_splits
    sequence = (program // num_splits // groups).to(tl.int64)
    group = (program // num_splits % groups).to(tl.int64)
    stop = tl.minimum(tl.load(lengths_at + sequence), (split + 1) * SPLIT)
    start = split * SPLIT
    if WINDOWED:
        start = tl.maximum(start, tl.load(starts_at + sequence))
    table = table_at + sequence * table_stride
    member = tl.arange(0, ROWS)
    feature, value = tl.arange(0, PADDED), tl.arange(0, VALUE_PADDED)
    head = group * shared + member
    row = q.at + sequence * q.batch + head[:, None] * q.head + feature[None, :] * q.item
    query = tl.load(row, (member < shared)[:, None] & (feature < WIDTH)[None, :], 0.0)
    peak = tl.full([ROWS], -float("inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    mixed = tl.zeros([ROWS, VALUE_PADDED], tl.float32)
    first = start // BLOCK_N * BLOCK_N
    first_full = (start + BLOCK_N - 1) // BLOCK_N * BLOCK_N
    last_full = tl.maximum(stop // BLOCK_N * BLOCK_N, first_full)
    for begin in range(first, tl.minimum(first_full, stop), BLOCK_N):
        peak, total, mixed = absorb_tokens(
            (peak, total, mixed), query, begin, start, stop, key_pages, value_pages, table, group, scale,
            PAGE, BLOCK_N, True, WIDTH, PADDED, VALUE_WIDTH, VALUE_PADDED,
        )  # fmt: skip
    for begin in range(first_full, last_full, BLOCK_N):
        peak, total, mixed = absorb_tokens(
            (peak, total, mixed), query, begin, start, stop, key_pages, value_pages, table, group, scale,
            PAGE, BLOCK_N, False, WIDTH, PADDED, VALUE_WIDTH, VALUE_PADDED,
        )  # fmt: skip
    for begin in range(last_full, stop, BLOCK_N):
        peak, total, mixed = absorb_tokens(
            (peak, total, mixed), query, begin, start, stop, key_pages, value_pages, table, group, scale,
            PAGE, BLOCK_N, True, WIDTH, PADDED, VALUE_WIDTH, VALUE_PADDED,
        )  # fmt: skip
    place = (sequence * heads + head) * num_splits + split
    mine = member < tl.where(start < stop, shared, 0)
    tl.store(peaks_at + place, peak, mine)
    tl.store(totals_at + place, total, mine)
    tl.store(
        mixed_at + place[:, None] * VALUE_WIDTH + value[None, :], mixed, mine[:, None] & (value < VALUE_WIDTH)[None, :]
    )


@triton.jit
def merge_kernel(
    out, lengths_at, starts_at, sink_at, peaks_at, totals_at, mixed_at, row_max_at, row_log_sum_at, heads, num_splits,
    WINDOWED: tl.constexpr, SINK: tl.constexpr, SPLIT: tl.constexpr,
    VALUE_WIDTH: tl.constexpr, VALUE_PADDED: tl.constexpr,
):  # fmt: skip
    """Join the splits of one head of one sequence, in order."""
    program = tl.program_id(0).to(tl.int64)
    sequence, head = program // heads, program % heads
    stop = tl.load(lengths_at + sequence)
    start = 0
    if WINDOWED:
        start = tl.maximum(tl.load(starts_at + sequence), 0)
    value = tl.arange(0, VALUE_PADDED)
    inside = value < VALUE_WIDTH
    peak = tl.full([1], -float("inf"), tl.float32)
    total = tl.zeros([1], tl.float32)
    mixed = tl.zeros([VALUE_PADDED], tl.float32)
    last = tl.where(start < stop, (stop + SPLIT - 1) // SPLIT, 0)
    for split in range(start // SPLIT, last):
        place = program * num_splits + split
        its_peak = tl.load(peaks_at + place)
        higher = tl.maximum(peak, its_peak)
        exponent = row_exponent(higher)
        shrink = tl.where(peak == -float("inf"), 0.0, tl.exp2(row_exponent(peak) - exponent))
        grow = tl.where(its_peak == -float("inf"), 0.0, tl.exp2(row_exponent(its_peak) - exponent))
        total = total * shrink + tl.load(totals_at + place) * grow
        mixed = mixed * shrink + tl.load(mixed_at + place * VALUE_WIDTH + value, inside, 0.0) * grow
        peak = higher
    sink = 0.0
    if SINK:
        sink = tl.load(sink_at + head)
    row_max, row_log_sum, factor = finished(peak, total, 1.0, sink, SINK)
    one = tl.arange(0, 1)
    tl.store(row_max_at + program + one, row_max)
    tl.store(row_log_sum_at + program + one, row_log_sum)
    tl.store(out + program * VALUE_WIDTH + value, (mixed * factor).to(out.dtype.element_ty), inside)
