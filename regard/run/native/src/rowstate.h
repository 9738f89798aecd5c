// The softmax of a block of rows, one chunk of keys at a time.
//
//   m' = max(m, max_j s_j)      c = e^(m - m')      e_j = e^(s_j - m')
//   l  = c·l + Σ e_j            u = c·(u + (m - m')·l_before) + Σ e_j (s_j - m')      x = c·x + Σ e_j f_j
//
// At the end the weights are a_j = e_j / L with L = l + e^(sink - m), the entropy is log L · l/L - u/L, and any sum
// is x / L. Sums within a chunk are float32, across chunks float64.
#pragma once
#include "scores.h"

namespace regard::REGARD_ISA {

constexpr int MAX_SUMS = 3 + 61;  // l, u, and the sums that statistics ask for

struct RowState {
  alignas(64) float max[BLOCK_ROWS];      // m
  alignas(64) float safe_max[BLOCK_ROWS]; // m, or 0 while a row has seen nothing
  alignas(64) float rescale[BLOCK_ROWS];  // c of the last chunk
  bool rescales = false;                  // whether any c differs from 1
  double* sums = nullptr;                 // [num_sums][BLOCK_ROWS]: l, u, x …
  float* parts = nullptr;                 // the same of the last chunk
  int num_sums = 0;
};

enum Sum : int { weight_sum = 0, log_sum = 1, first_extra = 2 };

static void start_state(RowState& state, int num_sums, Scratch& scratch) {
  state.num_sums = num_sums;
  state.sums = scratch.doubles(Scratch::state, static_cast<size_t>(num_sums) * BLOCK_ROWS * 2);
  state.parts = reinterpret_cast<float*>(state.sums + num_sums * BLOCK_ROWS);
  for (int i = 0; i < num_sums * BLOCK_ROWS; ++i) state.sums[i] = 0;
  for (int row = 0; row < BLOCK_ROWS; ++row) state.max[row] = minus_infinity();
}

// Takes the maxima of the chunk into m, and sets c.
static void raise_max(RowState& state, const float* scores, int count, int vectors) {
  const int lanes = vectors * W;
  state.rescales = false;
  in_groups(vectors, [&](auto n, int first) {
    constexpr int N = decltype(n)::value;
    vf best[N], before[N];
    for (int v = 0; v < N; ++v) best[v] = before[v] = load(state.max + (first + v) * W);
    for (int c = 0; c < count; ++c)
      for (int v = 0; v < N; ++v) best[v] = max(load(scores + c * lanes + (first + v) * W), best[v]);
    for (int v = 0; v < N; ++v) {
      const int at = (first + v) * W;
      const vf safe = select(less(best[v], splat(-3e38f)), zero(), best[v]);
      const vf change = max(before[v] - safe, splat(-1e4f));
      store(state.max + at, best[v]);
      store(state.safe_max + at, safe);
      store(state.rescale + at, exponential(change));
      if (bits(less(before[v], best[v])) != 0) state.rescales = true;
    }
  });
}

// scores -> e, in place, with their sums l and, if wanted, u.
template <bool WITH_LOG>
static void exponentials(RowState& state, float* scores, int count, int vectors) {
  const int lanes = vectors * W;
  in_groups(vectors, [&](auto n, int first) {
    constexpr int N = decltype(n)::value;
    vf highest[N], sum[N], log_weighted[N];
    for (int v = 0; v < N; ++v) {
      highest[v] = load(state.safe_max + (first + v) * W);
      sum[v] = log_weighted[v] = zero();
    }
    for (int c = 0; c < count; ++c) {
      float* at = scores + c * lanes + first * W;
#pragma GCC unroll 4
      for (int v = 0; v < N; ++v) {
        const vf x = max(splat(-1e4f), load(at + v * W) - highest[v]);  // a NaN stays one
        const vf e = exponential(x);
        store(at + v * W, e);
        sum[v] = sum[v] + e;
        if (WITH_LOG) log_weighted[v] = fma(e, x, log_weighted[v]);
      }
    }
    for (int v = 0; v < N; ++v) {
      store(state.parts + weight_sum * BLOCK_ROWS + (first + v) * W, sum[v]);
      if (WITH_LOG) store(state.parts + log_sum * BLOCK_ROWS + (first + v) * W, log_weighted[v]);
    }
  });
}

// Folds the chunk's sums into the rows'. before[row]: the maximum before this chunk.
static void fold(RowState& state, const float* before, int lanes) {
  double* l = state.sums + weight_sum * BLOCK_ROWS;
  if (state.rescales) {
    if (state.num_sums > log_sum) {
      double* u = state.sums + log_sum * BLOCK_ROWS;
      for (int row = 0; row < lanes; ++row)
        if (before[row] > minus_infinity()) u[row] += (double{before[row]} - state.max[row]) * l[row];
    }
    for (int s = 0; s < state.num_sums; ++s)
      for (int row = 0; row < lanes; ++row) state.sums[s * BLOCK_ROWS + row] *= state.rescale[row];
  }
  for (int s = 0; s < state.num_sums; ++s)
    for (int row = 0; row < lanes; ++row) state.sums[s * BLOCK_ROWS + row] += state.parts[s * BLOCK_ROWS + row];
}

}  // namespace regard::REGARD_ISA
