"""Scores of a tile: q · k, then the plan's terms in their order.

A plan that is a plain scaled dot product has TERMS == (): its scores stay q · k, and the scale goes into the power of
two that follows (`Call.to_log2`), which saves a product per pair.
"""

from __future__ import annotations

import triton
import triton.language as tl

from regard.run.triton import arguments

SCALE = tl.constexpr(arguments.SCALE)
HEAD_SCALE = tl.constexpr(arguments.HEAD_SCALE)
KEY_BIAS = tl.constexpr(arguments.KEY_BIAS)
SLOPE = tl.constexpr(arguments.SLOPE)
DISTANCE = tl.constexpr(arguments.DISTANCE)
TABLE = tl.constexpr(arguments.TABLE)
SOFTCAP = tl.constexpr(arguments.SOFTCAP)

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)


@triton.jit
def tanh(x):
    """tanh, to a few units in the last place (Cephes, tanhf: a polynomial near 0, where 1 - 2 / (e^2x + 1) cancels)."""
    z = x * x
    near = (((-5.70498872745e-3 * z + 2.06390887954e-2) * z - 5.37397155531e-2) * z + 1.33314422036e-1) * z
    near = (near - 3.33332819422e-1) * z * x + x
    far = 1.0 - 2.0 / (tl.exp(2.0 * tl.abs(x)) + 1.0)
    return tl.where(tl.abs(x) < 0.625, near, tl.where(x < 0, -far, far))


@triton.jit
def distances(call, batch, rows, keys):
    """int32 [rows, keys]: p_j - p_i."""
    own = tl.load(
        call.query_positions.at + batch * call.query_positions.batch + rows,
        (rows >= 0) & (rows < call.queries),
        0,
    )
    other = tl.load(call.key_positions.at + batch * call.key_positions.batch + keys, keys < call.keys, 0)
    return other[None, :] - own[:, None]


@triton.jit
def scored(dot, call, batch, head, rows, keys, TERMS: tl.constexpr, GRAD: tl.constexpr):
    """(s, ∂s/∂s₀) [rows, keys] float32 from dot = q · k; s₀ = scale · dot. The derivative is 1 unless GRAD.

    Scores of cells outside the call are whatever they are; the caller masks them.
    """
    score = dot
    slope = 1.0
    for n in tl.static_range(len(TERMS)):
        term = call.terms[n]
        if TERMS[n] == SCALE:
            score = score * term.number
        elif TERMS[n] == HEAD_SCALE:
            score = score * tl.load(term.at + head * term.head)
        elif TERMS[n] == KEY_BIAS:
            place = term.at + batch * term.batch + head * term.head + keys * term.column
            score = score + tl.load(place, keys < call.keys, 0.0).to(tl.float32)[None, :]
        elif TERMS[n] == SLOPE:
            ahead = distances(call, batch, rows, keys).to(tl.float32)
            score = score + tl.load(term.at + head * term.head) * ahead
        elif TERMS[n] == DISTANCE:
            ahead = distances(call, batch, rows, keys)
            index = tl.minimum(tl.maximum(ahead, -term.reach), term.reach) + term.reach
            score = score + tl.load(term.at + head * term.head + index).to(tl.float32)
        elif TERMS[n] == TABLE:
            place = term.at + batch * term.batch + head * term.head + rows.to(tl.int64)[:, None] * term.row
            inside = ((rows >= 0) & (rows < call.queries))[:, None] & (keys < call.keys)[None, :]
            score = score + tl.load(place + keys[None, :] * term.column, inside, 0.0).to(tl.float32)
        elif TERMS[n] == SOFTCAP:
            bent = tanh(score / term.number)
            score = term.number * bent
            if GRAD:
                slope = slope * (1.0 - bent * bent)
    return score, slope


@triton.jit
def row_exponent(row_max):
    """m · log2 e of rows with the largest score m; 0 where nothing was seen yet, so that s - m stays defined."""
    return tl.where(row_max == -float("inf"), 0.0, row_max * LOG2E)


@triton.jit
def powers(score, seen, call, row_max, row_log_sum):
    """log2 of the weights of a tile, from its scores and the rows' state by the forward walk's own arithmetic.

    First s - m, which is exact where it matters, then the logarithm of the sum: their own sum would lose digits.
    -inf where unseen.
    """
    score = tl.where(seen, score, -float("inf"))
    return (score * call.to_log2 - row_exponent(row_max)[:, None]) - (row_log_sum * LOG2E)[:, None]
