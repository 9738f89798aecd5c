// The one matrix product: C[m][n] = Σ_k A[m][k] · B[k][n], or += where ADD.
//
// B's rows are vectors (n is contiguous), A's elements are broadcast, so A may lie in memory any way: keys as they
// are for q·k, values as they are for weights·v. A tile of 6 × 4 vectors stays in registers over all of k.
#pragma once
#include "simd.h"

namespace regard::REGARD_ISA {

#if defined(__AVX512F__)
constexpr int TILE_ROWS = 6, TILE_VECTORS = 4;
#elif defined(__AVX2__)
constexpr int TILE_ROWS = 6, TILE_VECTORS = 2;
#else
constexpr int TILE_ROWS = 4, TILE_VECTORS = 2;
#endif

struct Operand {  // element (m, k) lies at data[m * row + k * depth]
  const float* data;
  int64_t row, depth;
};

template <int M, int N, bool ADD>
REGARD_INLINE void tile(Operand a, const float* b, int64_t b_row, float* c, int64_t c_row, int64_t depth) {
  vf sum[M][N];
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) sum[m][n] = ADD ? load(c + m * c_row + n * W) : zero();
  const float* x = a.data;
  for (int64_t k = 0; k < depth; ++k, x += a.depth, b += b_row) {
    vf y[N];
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) y[n] = load(b + n * W);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
      const vf broadcast = splat(x[m * a.row]);
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) sum[m][n] = fma(broadcast, y[n], sum[m][n]);
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) store(c + m * c_row + n * W, sum[m][n]);
}

// m rows of N vectors: tiles of TILE_ROWS, then what is left.
template <int N, bool ADD>
[[gnu::noinline]] static void tile_rows(int64_t m, const Operand& from, const float* b, int64_t b_row, float* c,
                                        int64_t c_row, int64_t depth) {
  Operand a = from;
  for (; m >= TILE_ROWS; m -= TILE_ROWS, a.data += TILE_ROWS * a.row, c += TILE_ROWS * c_row)
    tile<TILE_ROWS, N, ADD>(a, b, b_row, c, c_row, depth);
  switch (m) {
    case 1: tile<1, N, ADD>(a, b, b_row, c, c_row, depth); break;
    case 2: tile<2, N, ADD>(a, b, b_row, c, c_row, depth); break;
    case 3: tile<3, N, ADD>(a, b, b_row, c, c_row, depth); break;
#if defined(__AVX2__)
    case 4: tile<4, N, ADD>(a, b, b_row, c, c_row, depth); break;
    case 5: tile<5, N, ADD>(a, b, b_row, c, c_row, depth); break;
#endif
    default: break;
  }
}

// C: m rows of `vectors` vectors. Each element is one chain of k in order: its bits depend on nothing around it.
template <bool ADD>
REGARD_INLINE void multiply(int64_t m, int vectors, const Operand& a, const float* b, int64_t b_row, float* c,
                            int64_t c_row, int64_t depth) {
  for (; vectors >= TILE_VECTORS; vectors -= TILE_VECTORS, b += TILE_VECTORS * W, c += TILE_VECTORS * W)
    tile_rows<TILE_VECTORS, ADD>(m, a, b, b_row, c, c_row, depth);
  switch (vectors) {
    case 1: tile_rows<1, ADD>(m, a, b, b_row, c, c_row, depth); break;
#if defined(__AVX512F__)
    case 2: tile_rows<2, ADD>(m, a, b, b_row, c, c_row, depth); break;
    case 3: tile_rows<3, ADD>(m, a, b, b_row, c, c_row, depth); break;
#endif
    default: break;
  }
}

}  // namespace regard::REGARD_ISA
