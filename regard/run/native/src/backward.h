// Gradients of out = softmax(s)·v for one query head, block by block; weights are computed anew from the rows' state.
//
//   p = e^((s - m) - log L)      D_i = Σ out·dout       dS = p ∘ (V·dout - D)       (· the slope of softcaps)
//   dV += p·dout                 dQ = scale · dSᵀ K     dK += dS · (scale Q)
//
// dK and dV are sums over the head's rows in order, in one thread: no atomics, the same bits every time.
#pragma once
#include "attend.h"

namespace regard::REGARD_ISA {

REGARD_INLINE int64_t padded(int64_t width) { return (width + 15) / 16 * 16; }  // as the gradient buffers are

// rows[row][padded width] from columns[width][lanes].
static void turn_back(const Rows& rows, const float* columns, int64_t width, float* to) {
  const int64_t stride = padded(width);
  for (int row = 0; row < rows.block.rows; ++row)
    for (int64_t d = 0; d < stride; ++d) to[row * stride + d] = d < width ? columns[d * rows.lanes + row] : 0;
}

struct RowGradients {
  alignas(64) float reference[BLOCK_ROWS];  // m
  alignas(64) float inverse[BLOCK_ROWS];    // e^-log L, 0 for an empty row
  alignas(64) float delta[BLOCK_ROWS];      // D
};

static void read_rows(const Rows& rows, RowGradients& state) {
  const Call& call = rows.call;
  const Block& block = rows.block;
  const int64_t width = call.value_width();
  float* out = rows.scratch.floats(Scratch::state, 2 * static_cast<size_t>(width));
  for (int row = 0; row < rows.lanes; ++row) {
    state.reference[row] = state.inverse[row] = state.delta[row] = 0;
    if (row >= block.rows) continue;
    const int64_t head = block.head[row], query = block.query[row];
    const float m = *call.row_max.at<float>(block.batch, head, query);
    if (!(m > minus_infinity())) continue;
    state.reference[row] = m;
    state.inverse[row] =
        static_cast<float>(__builtin_exp(-double{*call.row_log_sum.at<float>(block.batch, head, query)}));
    const float* o = float_rows(call.out, block.batch, head, query, 1, width, out).data;
    const float* g = float_rows(call.grad_out, block.batch, head, query, 1, width, out + width).data;
    double delta = 0;
    for (int64_t d = 0; d < width; ++d) delta += double{o[d]} * g[d];
    state.delta[row] = static_cast<float>(delta);
  }
}

// scores -> p, and (V·dout) -> dS, both in place.
static void score_gradients(const Rows& rows, const RowGradients& state, int count, float* p, float* ds,
                            const float* slope) {
  for (int c = 0; c < count; ++c) {
    for (int v = 0; v < rows.vectors; ++v) {
      const int at = c * rows.lanes + v * W;
      const vf x = max(splat(LOWEST), load(p + at) - load(state.reference + v * W));
      const vf weight = exponential(x) * load(state.inverse + v * W);
      vf gradient = weight * (load(ds + at) - load(state.delta + v * W));
      if (slope) gradient = gradient * load(slope + at);
      store(p + at, weight);
      store(ds + at, gradient);
    }
  }
}

static void backward_block(Rows& rows) {
  const Call& call = rows.call;
  Scratch& scratch = rows.scratch;
  const int64_t key_width = call.key_width(), value_width = call.value_width();
  start_rows(rows);
  const int lanes = rows.lanes;
  const size_t room = static_cast<size_t>(BLOCK_ROWS);
  float* grad_columns = scratch.floats(Scratch::output, value_width * lanes);
  float* query_rows = scratch.floats(Scratch::rows_q, room * padded(key_width));
  float* grad_rows = scratch.floats(Scratch::grads, room * padded(value_width));
  float* grad_query = scratch.floats(Scratch::grad_query, key_width * lanes);
  float* p = scratch.floats(Scratch::scores, 3 * CHUNK * room);
  float* ds = p + CHUNK * lanes;
  float* slope = nullptr;
  for (int i = 0; i < call.num_terms; ++i)
    if (call.terms[i].kind == Term::softcap) slope = ds + CHUNK * lanes;
  pack_rows(rows, call.grad_out, value_width, false, grad_columns);
  turn_back(rows, rows.query, key_width, query_rows);
  turn_back(rows, grad_columns, value_width, grad_rows);
  RowGradients state;
  read_rows(rows, state);
  for (int64_t i = 0; i < key_width * lanes; ++i) grad_query[i] = 0;
  const int64_t batch = rows.block.batch, head = rows.block.head[0];
  Keys keys;
  for (int i = 0; i < rows.walk.num_chunks; ++i) {
    const Chunk& chunk = rows.walk.chunks[i];
    list_keys(rows, chunk, keys);
    score_chunk(rows, chunk, keys, p, slope);
    for (int r = 0; r < chunk.num_runs; ++r) {
      const Run& run = rows.walk.runs[chunk.first_run + r];
      const Operand v = values_of(call, scratch, rows.block, run);
      multiply<false>(run.length, rows.vectors, v, grad_columns, lanes, ds + int64_t{run.place} * lanes, lanes,
                      value_width);
    }
    score_gradients(rows, state, chunk.count, p, ds, slope);
    for (int r = 0; r < chunk.num_runs; ++r) {
      const Run& run = rows.walk.runs[chunk.first_run + r];
      const float *p_run = p + int64_t{run.place} * lanes, *ds_run = ds + int64_t{run.place} * lanes;
      const Operand k = keys_of(call, scratch, rows.block, run);
      multiply<true>(key_width, rows.vectors, {k.data, 1, k.row}, ds_run, lanes, grad_query, lanes, run.length);
      multiply<true>(run.length, static_cast<int>(padded(key_width) / W), {ds_run, lanes, 1}, query_rows,
                     padded(key_width), call.grad_k.at<float>(batch, head, run.key), padded(key_width),
                     rows.block.rows);
      multiply<true>(run.length, static_cast<int>(padded(value_width) / W), {p_run, lanes, 1}, grad_rows,
                     padded(value_width), call.grad_v.at<float>(batch, head, run.key), padded(value_width),
                     rows.block.rows);
    }
  }
  const float scale = call.head_scale ? *call.head_scale.at<const float>(head) : call.scale;
  for (int row = 0; row < rows.block.rows; ++row) {
    float* to = call.grad_q.at<float>(batch, head, rows.block.query[row]);
    for (int64_t d = 0; d < key_width; ++d) to[d] = grad_query[d * lanes + row] * scale;
  }
}

static void backward(const Call& call, int64_t batch, int64_t head) {
  const FlushTiny flush;
  Rows rows(call, Scratch::mine());
  for (int64_t first = 0; first < call.queries(); first += BLOCK_ROWS) {
    Block& block = rows.block;
    block.batch = batch;
    block.group = head / (call.heads() / call.groups());
    block.one_head = true;
    block.rows = static_cast<int>(call.queries() - first < BLOCK_ROWS ? call.queries() - first : BLOCK_ROWS);
    for (int row = 0; row < block.rows; ++row) {
      block.head[row] = static_cast<int>(head);
      block.query[row] = first + row;
    }
    backward_block(rows);
  }
}

}  // namespace regard::REGARD_ISA
