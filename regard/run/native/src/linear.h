// y = x · wᵀ + b for few rows: one pass over the weights, which are packed in panels of 32 outputs, [N/32][K][32],
// as float32, as bfloat16 that is widened in registers, or as int8 with one scale per output.
//
// A tile of up to 12 rows × 32 outputs stays in registers over all of K, so each y is one chain of k in order: a row's
// bits do not depend on how many rows there are.
#pragma once
#include "packed.h"
#include "tile.h"
#include "widen.h"

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

REGARD_INLINE vf load_weights(const float* w) { return load(w); }
REGARD_INLINE vf load_weights(const Bf16* w) { return load_widened(w); }

REGARD_INLINE vf load_weights(const int8_t* w) {
#if defined(__AVX512F__)
  return reinterpret_cast<vf>(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(w)))));
#elif defined(__AVX2__)
  return reinterpret_cast<vf>(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(w)))));
#else
  vf x;
  for (int i = 0; i < W; ++i) x[i] = w[i];
  return x;
#endif
}

// y[m][0 … 2W-1] for M rows of x; w: a panel's columns from one vector pair on.
template <int M, class Weight>
REGARD_INLINE void panel_tile(const float* x, int64_t x_row, const Weight* w, int64_t depth, const float* scale,
                              const float* bias, float* y, int64_t y_row, Fetch next) {
  vf sum[M][2];
#pragma GCC unroll 12
  for (int m = 0; m < M; ++m) sum[m][0] = sum[m][1] = zero();
  for (int64_t k = 0; k < depth; ++k, w += PANEL, next.from += next.step) {
    __builtin_prefetch(next.from);
    if (sizeof(Weight) == 4) __builtin_prefetch(next.from + 64);
    const vf a = load_weights(w), b = load_weights(w + W);
#pragma GCC unroll 12
    for (int m = 0; m < M; ++m) {
      const vf broadcast = splat(x[m * x_row + k]);
      sum[m][0] = fma(broadcast, a, sum[m][0]);
      sum[m][1] = fma(broadcast, b, sum[m][1]);
    }
  }
#pragma GCC unroll 12
  for (int m = 0; m < M; ++m)
    for (int n = 0; n < 2; ++n)
      store(y + m * y_row + n * W, fma(sum[m][n], load(scale + n * W), load(bias + n * W)));
}

template <class Weight>
REGARD_STEP void panel_rows(int m, const float* x, int64_t x_row, const Weight* w, int64_t depth, const float* scale,
                            const float* bias, float* y, int64_t y_row, Fetch next) {
#define REGARD_ROWS(M) \
  case M: panel_tile<M>(x, x_row, w, depth, scale, bias, y, y_row, next); break;
  switch (m) {
    REGARD_ROWS(1) REGARD_ROWS(2) REGARD_ROWS(3) REGARD_ROWS(4)
#if defined(__AVX2__)
    REGARD_ROWS(5) REGARD_ROWS(6)
#endif
#if defined(__AVX512F__)
    REGARD_ROWS(7) REGARD_ROWS(8) REGARD_ROWS(9) REGARD_ROWS(10) REGARD_ROWS(11) REGARD_ROWS(12)
#endif
    default: break;
  }
#undef REGARD_ROWS
}

template <class Weight>
static void multiply_panel(const PackedProduct& call, int64_t panel) {
  const Weight* w = reinterpret_cast<const Weight*>(call.weights) + panel * call.depth * PANEL;
  const int64_t first = panel * PANEL, count = call.outputs - first < PANEL ? call.outputs - first : PANEL;
  alignas(64) float scale[PANEL], bias[PANEL], room[PANEL_ROWS * PANEL];
  for (int64_t n = 0; n < PANEL; ++n) {
    scale[n] = n < count && call.scale ? call.scale[first + n] : 1;
    bias[n] = n < count && call.bias ? call.bias[first + n] : 0;
  }
  const int64_t tiles = (call.rows + PANEL_ROWS - 1) / PANEL_ROWS, step = (call.rows + tiles - 1) / tiles;
  const int64_t shares = tiles * (PANEL / (2 * W)), share = call.depth * PANEL * sizeof(Weight) / shares;
  const char* begin = reinterpret_cast<const char*>(w);
  const int64_t bytes = PANEL * sizeof(Weight);
  Fetch next = shares == 1 ? Fetch{begin + FETCH_AHEAD, bytes} : Fetch{begin + call.depth * bytes, bytes / shares};
  for (int64_t row = 0; row < call.rows; row += step) {
    const int m = static_cast<int>(call.rows - row < step ? call.rows - row : step);
    float* y = call.y + row * call.y_row + first;
    float* to = count == PANEL ? y : room;
    const int64_t to_row = count == PANEL ? call.y_row : PANEL;
    for (int n = 0; n < PANEL; n += 2 * W, next.from += share)
      panel_rows(m, call.x + row * call.x_row, call.x_row, w + n, call.depth, scale + n, bias + n, to + n, to_row, next);
    if (to == room)
      for (int i = 0; i < m; ++i)
        for (int64_t n = 0; n < count; ++n) y[i * call.y_row + n] = room[i * PANEL + n];
  }
}

static void multiply_packed(const PackedProduct& call, int64_t first_panel, int64_t last_panel) {
  for (int64_t panel = first_panel; panel < last_panel; ++panel) {
    switch (call.stored) {
      case Stored::f32: multiply_panel<float>(call, panel); break;
      case Stored::i8: multiply_panel<int8_t>(call, panel); break;
      case Stored::bf16: multiply_panel<Bf16>(call, panel); break;
    }
  }
}

}  // namespace regard::REGARD_ISA
