// Products in vectors: one pass over the weights.
//
// A tile of up to 12 rows × 32 outputs stays in registers over all of K, so each y is one chain of k in order: a row's
// bits do not depend on how many rows there are.
#pragma once
#include "rows.h"
#include "tile.h"

namespace regard::REGARD_ISA {

#if defined(__AVX512F__)
constexpr int PANEL_ROWS = 12;
#elif defined(__AVX2__)
constexpr int PANEL_ROWS = 6;
#else
constexpr int PANEL_ROWS = 4;
#endif

// Weights are fetched from memory ahead of their use: with one tile per panel a little ahead in the same panel; with
// several, the next panel, a share of it with every tile, so that memory is never left idle.
constexpr int64_t FETCH_AHEAD = 8192;  // bytes

struct Fetch {
  const char* from;
  int64_t step;  // bytes per k
};

// Two vectors of weights of k and of k + 1, from one panel of columns.
REGARD_INLINE void load_weights(const float* w, vf (&of)[2][2]) {
  of[0][0] = load(w), of[0][1] = load(w + W), of[1][0] = load(w + PANEL), of[1][1] = load(w + PANEL + W);
}

REGARD_INLINE vf widened_bytes(const int8_t* w) {
#if defined(__AVX512F__)
  return reinterpret_cast<vf>(
      _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(w)))));
#elif defined(__AVX2__)
  return reinterpret_cast<vf>(
      _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(w)))));
#else
  vf x;
  for (int i = 0; i < W; ++i) x[i] = w[i];
  return x;
#endif
}

REGARD_INLINE void load_weights(const int8_t* w, vf (&of)[2][2]) {
  of[0][0] = widened_bytes(w), of[0][1] = widened_bytes(w + W);
  of[1][0] = widened_bytes(w + PANEL), of[1][1] = widened_bytes(w + PANEL + W);
}

// A pair of bfloat16 in 32 bits: the even one is the lower half.
REGARD_INLINE void load_weights(const Bf16* w, vf (&of)[2][2]) {
  for (int n = 0; n < 2; ++n) {
    const vi pair = load(reinterpret_cast<const int*>(w) + n * W);
    of[0][n] = as_float(pair << 16), of[1][n] = as_float(pair & splat(static_cast<int>(0xffff0000u)));
  }
}

// z[m][0 … 2W-1] for M rows of x; w: a panel's columns from one vector pair on.
template <int M, class Weight>
REGARD_INLINE void panel_tile(const float* x, int64_t x_row, const Weight* w, int64_t depth, float* z, Fetch next) {
  vf sum[M][2];
#pragma GCC unroll 12
  for (int m = 0; m < M; ++m) sum[m][0] = sum[m][1] = zero();
  const auto add = [&](int64_t k, vf a, vf b) {
#pragma GCC unroll 12
    for (int m = 0; m < M; ++m) {
      const vf broadcast = splat(x[m * x_row + k]);
      sum[m][0] = fma(broadcast, a, sum[m][0]);
      sum[m][1] = fma(broadcast, b, sum[m][1]);
    }
  };
  vf of[2][2];
  int64_t k = 0;
  for (; k + 2 <= depth; k += 2, w += 2 * PANEL, next.from += 2 * next.step) {
    __builtin_prefetch(next.from);
    __builtin_prefetch(next.from + (sizeof(Weight) == 1 ? 0 : 64));
    if (sizeof(Weight) == 4) __builtin_prefetch(next.from + next.step), __builtin_prefetch(next.from + next.step + 64);
    load_weights(w, of);
    add(k, of[0][0], of[0][1]);
    add(k + 1, of[1][0], of[1][1]);
  }
  if (k < depth) {
    if constexpr (sizeof(Weight) == 2) {
      load_weights(w, of);
      add(k, of[0][0], of[0][1]);
    } else if constexpr (sizeof(Weight) == 4) {
      add(k, load(w), load(w + W));
    } else {
      add(k, widened_bytes(w), widened_bytes(w + W));
    }
  }
#pragma GCC unroll 12
  for (int m = 0; m < M; ++m)
    for (int n = 0; n < 2; ++n) store(z + m * PANEL + n * W, sum[m][n]);
}

template <class Weight>
REGARD_STEP void panel_rows(int m, const float* x, int64_t x_row, const Weight* w, int64_t depth, float* z,
                            Fetch next) {
#define REGARD_ROWS(M) \
  case M: panel_tile<M>(x, x_row, w, depth, z, next); break;
  switch (m) {
    REGARD_ROWS(1)
    REGARD_ROWS(2) REGARD_ROWS(3) REGARD_ROWS(4)
#if defined(__AVX2__)
        REGARD_ROWS(5) REGARD_ROWS(6)
#endif
#if defined(__AVX512F__)
            REGARD_ROWS(7) REGARD_ROWS(8) REGARD_ROWS(9) REGARD_ROWS(10) REGARD_ROWS(11) REGARD_ROWS(12)
#endif
                default : break;
  }
#undef REGARD_ROWS
}

constexpr int64_t PAIRED = 32;  // bfloat16 panels are filled up with zeros to a multiple of this in K

template <class Weight>
static void multiply_panel(const PackedProduct& call, int64_t panel) {
  const Weights& weights = call.weights;
  const int64_t depth = weights.depth, stored_depth = sizeof(Weight) == 2 ? filled(depth, PAIRED) : depth;
  const Weight* w = reinterpret_cast<const Weight*>(weights.panels) + panel * stored_depth * PANEL;
  const int64_t first = panel * PANEL, outputs = weights.outputs;
  alignas(64) float z[PANEL_ROWS * PANEL];
  const int64_t tiles = (call.rows + PANEL_ROWS - 1) / PANEL_ROWS, step = (call.rows + tiles - 1) / tiles;
  const int64_t shares = tiles * (PANEL / (2 * W)), bytes = PANEL * sizeof(Weight);
  const char* begin = reinterpret_cast<const char*>(w);
  Fetch next = shares == 1 ? Fetch{begin + FETCH_AHEAD, bytes} : Fetch{begin + stored_depth * bytes, bytes / shares};
  const float* x = static_cast<const float*>(call.x);
  for (int64_t row = 0; row < call.rows; row += step) {
    const int m = static_cast<int>(call.rows - row < step ? call.rows - row : step);
    for (int n = 0; n < PANEL; n += 2 * W, next.from += stored_depth * bytes / shares)
      panel_rows(m, x + row * call.x_row, call.x_row, w + n * (sizeof(Weight) == 2 ? 2 : 1), depth, z + n, next);
    if (weights.scale)
      for (int i = 0; i < m; ++i)
        for (int64_t n = 0; n < PANEL && first + n < outputs; ++n) z[i * PANEL + n] *= weights.scale[first + n];
    finish(call, panel, row, m, z);
  }
}

// int8 by int8: sums of whole numbers, the same on every machine.
static void multiply_bytes(const PackedProduct& call, int64_t panel) {
  const int64_t depth = filled(call.weights.depth, QUADS), first = panel * PANEL;
  const int8_t* w = static_cast<const int8_t*>(call.weights.panels) + panel * depth * PANEL;
  const char* x = static_cast<const char*>(call.x);
  alignas(64) float z[PANEL];
  for (int64_t row = 0; row < call.rows; ++row) {
    const char* mine = x + row * (depth + 64);
    float scale;
    std::memcpy(&scale, mine, 4);
    const int8_t* numbers = reinterpret_cast<const int8_t*>(mine + 64);
    int sum[PANEL] = {};
    for (int64_t k = 0; k < depth; k += 4)
      for (int n = 0; n < PANEL; ++n)
        for (int i = 0; i < 4; ++i) sum[n] += numbers[k + i] * w[k * PANEL + n * 4 + i];
    for (int64_t n = 0; n < PANEL; ++n)
      z[n] =
          first + n < call.weights.outputs ? static_cast<float>(sum[n]) * (scale * call.weights.scale[first + n]) : 0;
    finish(call, panel, row, 1, z);
  }
}

static int64_t prepared_bytes(Stored stored, int64_t rows, int64_t depth) {
  return stored == Stored::i8x8 ? rows * (filled(depth, QUADS) + 64) : 0;  // a line with the scale, then the numbers
}

static void prepare(const InputRows& rows, Stored stored, int64_t first, int64_t last, void* to) {
  const int64_t depth = rows.depth, wide = filled(depth, QUADS) + 64;
  float* normed = rows.gain ? Scratch::mine().floats(Scratch::scaled, static_cast<size_t>(depth)) : nullptr;
  for (int64_t row = first; row < last; ++row) {
    const float* x = rows.x + row * rows.x_row;
    if (rows.gain) {
      float* at = stored == Stored::i8x8 ? normed : static_cast<float*>(to) + row * depth;
      normalise(x, rows.gain, depth, rows.eps, at);
      x = at;
    }
    if (stored != Stored::i8x8) continue;
    char* mine = static_cast<char*>(to) + row * wide;
    std::memset(mine, 0, static_cast<size_t>(wide));
    const float scale = round_row(x, depth, [&](int64_t k, int8_t value) { mine[64 + k] = static_cast<char>(value); });
    std::memcpy(mine, &scale, 4);
  }
}

static void multiply(const PackedProduct& call, int64_t first_panel, int64_t last_panel) {
  for (int64_t panel = first_panel; panel < last_panel; ++panel) {
    switch (call.weights.stored) {
      case Stored::f32: multiply_panel<float>(call, panel); break;
      case Stored::i8: multiply_panel<int8_t>(call, panel); break;
      case Stored::bf16: multiply_panel<Bf16>(call, panel); break;
      case Stored::i8x8: multiply_bytes(call, panel); break;
    }
  }
}

}  // namespace regard::REGARD_ISA
