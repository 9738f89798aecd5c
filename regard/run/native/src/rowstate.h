// The softmax of a block of rows, one chunk of keys at a time.
//
//   m' = reference, e_j = e^(s_j - m'), c = e^(m - m')
//   l  = c·l + Σ e_j            u = c·(u + (m - m')·l_before) + Σ e_j (s_j - m')      x = c·x + Σ e_j f_j
//
// The reference follows the maximum of the scores only when that has grown by more than SLACK: e stays below
// e^SLACK, and most chunks need no rescaling. At the end the weights are a_j = e_j / L with L = l + e^(sink - m), the
// entropy is log L · l/L - u/L, and any sum is x / L. Sums within a chunk are float32, across chunks float64.
#pragma once
#include "scores.h"

namespace regard::REGARD_ISA {

constexpr float SLACK = 6;

struct RowState {
  alignas(64) float highest[BLOCK_ROWS];         // the largest score so far
  alignas(64) float reference[BLOCK_ROWS];       // m; -inf while a row has seen nothing
  alignas(64) float safe_reference[BLOCK_ROWS];  // m, or 0 while a row has seen nothing
  alignas(64) float rescale[BLOCK_ROWS];         // c of the last chunk
  alignas(64) float before[BLOCK_ROWS];          // m before the last chunk
  bool rescales = false;                         // whether any c differs from 1
  double* sums = nullptr;                        // [num_sums][BLOCK_ROWS]: l, u, x …
  float* parts = nullptr;                        // the same of the last chunk
  int num_sums = 0;
};

enum Sum : int { weight_sum = 0, log_sum = 1, first_extra = 2 };

static void start_state(RowState& state, int num_sums, Scratch& scratch) {
  state.num_sums = num_sums;
  state.sums = scratch.doubles(Scratch::state, static_cast<size_t>(num_sums) * BLOCK_ROWS * 2);
  state.parts = reinterpret_cast<float*>(state.sums + num_sums * BLOCK_ROWS);
  for (int i = 0; i < num_sums * BLOCK_ROWS; ++i) state.sums[i] = state.parts[i] = 0;
  for (int row = 0; row < BLOCK_ROWS; ++row)
    state.highest[row] = state.reference[row] = state.safe_reference[row] = minus_infinity();
}

// The largest score per row of each piece of `length` keys: best[piece][lanes].
REGARD_STEP int piece_maxima(const float* scores, int count, int vectors, int length, float* best) {
  const int lanes = vectors * W, pieces = (count + length - 1) / length;
  in_groups(vectors, [=](auto n, int first) {
    constexpr int N = decltype(n)::value;
    for (int piece = 0; piece < pieces; ++piece) {
      const int begin = piece * length, end = begin + length < count ? begin + length : count;
      vf largest[N];
      for (int v = 0; v < N; ++v) largest[v] = splat(minus_infinity());
      for (int c = begin; c < end; ++c)
#pragma GCC unroll 4
        for (int v = 0; v < N; ++v) largest[v] = max(load(scores + c * lanes + (first + v) * W), largest[v]);
      for (int v = 0; v < N; ++v) store(best + piece * lanes + (first + v) * W, largest[v]);
    }
  });
  return pieces;
}

// Takes the chunk's maxima in: the reference moves where it must, and c says by how much.
REGARD_STEP void raise_reference(RowState& state, const float* best, int pieces, int vectors) {
  const int lanes = vectors * W;
  state.rescales = false;
  for (int v = 0; v < vectors; ++v) {
    vf highest = load(state.highest + v * W);
    for (int piece = 0; piece < pieces; ++piece) highest = max(load(best + piece * lanes + v * W), highest);
    const vf before = load(state.reference + v * W);
    const vm moves = less(before + splat(SLACK), highest);
    const vf reference = select(moves, highest, before);
    const vf safe = select(less(reference, splat(-__FLT_MAX__)), zero(), reference);
    store(state.highest + v * W, highest);
    store(state.reference + v * W, reference);
    store(state.safe_reference + v * W, safe);
    store(state.before + v * W, before);
    store(state.rescale + v * W, exponential(max(before - safe, splat(LOWEST))));
    if (bits(moves) != 0) state.rescales = true;
  }
}

// scores -> e, in place, with their sums l and, if wanted, u.
template <bool WITH_LOG>
REGARD_STEP void exponentials(RowState& state, float* scores, int count, int vectors) {
  const int lanes = vectors * W;
  in_groups(vectors, [=, &state](auto n, int first) {
    constexpr int N = decltype(n)::value;
    vf reference[N], sum[N], log_weighted[N];
    for (int v = 0; v < N; ++v) {
      reference[v] = load(state.safe_reference + (first + v) * W);
      sum[v] = log_weighted[v] = zero();
    }
    float* at = scores + first * W;
    for (int c = 0; c < count; ++c, at += lanes) {
      vf x[N], e[N];
#pragma GCC unroll 4
      for (int v = 0; v < N; ++v) e[v] = x[v] = max(splat(LOWEST), load(at + v * W) - reference[v]);  // NaN stays NaN
      exponentials_of(e);
#pragma GCC unroll 4
      for (int v = 0; v < N; ++v) {
        store(at + v * W, e[v]);
        sum[v] = sum[v] + e[v];
        if (WITH_LOG) log_weighted[v] = fma(e[v], x[v], log_weighted[v]);
      }
    }
    for (int v = 0; v < N; ++v) {
      store(state.parts + weight_sum * BLOCK_ROWS + (first + v) * W, sum[v]);
      if (WITH_LOG) store(state.parts + log_sum * BLOCK_ROWS + (first + v) * W, log_weighted[v]);
    }
  });
}

// Folds the chunk's sums into the rows'.
REGARD_STEP void fold(RowState& state, int lanes) {
  if (state.rescales) {
    if (state.num_sums > log_sum) {
      const double* l = state.sums + weight_sum * BLOCK_ROWS;
      double* u = state.sums + log_sum * BLOCK_ROWS;
      for (int row = 0; row < lanes; ++row)
        if (state.before[row] > minus_infinity()) u[row] += (double{state.before[row]} - state.reference[row]) * l[row];
    }
    for (int s = 0; s < state.num_sums; ++s)
      for (int row = 0; row < lanes; ++row) state.sums[s * BLOCK_ROWS + row] *= state.rescale[row];
  }
  for (int s = 0; s < state.num_sums; ++s)
    for (int row = 0; row < lanes; ++row) state.sums[s * BLOCK_ROWS + row] += state.parts[s * BLOCK_ROWS + row];
}

}  // namespace regard::REGARD_ISA
