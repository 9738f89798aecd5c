// Products by the matrix unit (AMX), to the precision of float32.
//
// The unit multiplies bfloat16 and adds in float32. A float32 number is the sum of three bfloat16 numbers, so
//
//   x = x0 + x1 + x2,  w = w0 + w1 + w2,   x · w = Σ_{p+q<3} x_p · w_q      (what is left out is below 2^-24 |x · w|)
//
// where every product is exact. A bfloat16 weight is its own w0, the others are zero and add nothing: the same bits as
// that weight in float32. Sums run over 32 k at a time, in order: a row's bits depend on that row alone.
//
// Rows are prepared in tiles of 16: [rows/16][K/32][part][16][32] bfloat16, or, where rows are rounded to int8,
// [rows/16][K/64][16][64] and then the rows' scales.
#pragma once
#include "linear.h"

namespace regard::REGARD_ISA {

constexpr int TILE = 16;              // rows of a tile
constexpr int64_t TILE_BYTES = 1024;  // 16 rows of 64 bytes
constexpr int64_t STEP_BYTES = 2048;  // of stored weights: 32 outputs by 32 bfloat16 or 64 int8

struct alignas(64) TileShape {
  uint8_t palette = 1, start = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

class Unit {  // while it lives, tiles 0 … 3 and 4, 5 are for so many rows of x
 public:
  ~Unit() { _tile_release(); }
  REGARD_INLINE void shape(int rows) {
    if (rows == rows_) return;
    rows_ = rows;
    TileShape shape;
    const uint8_t first = static_cast<uint8_t>(rows < TILE ? rows : TILE), second = static_cast<uint8_t>(rows - first);
    shape.rows[0] = shape.rows[1] = shape.rows[4] = first;
    shape.rows[2] = shape.rows[3] = shape.rows[5] = second ? second : first;
    _tile_loadconfig(&shape);
  }

 private:
  int rows_ = 0;
};

REGARD_INLINE __m512i as_bits(vf x) { return reinterpret_cast<__m512i>(x); }

// ---- rows ------------------------------------------------------------------------------------------------------------

// 32 numbers as three lines of bfloat16, TILE_BYTES apart.
REGARD_INLINE void store_parts(vf a, vf b, char* to) {
  for (int part = 0; part < 3; ++part, to += TILE_BYTES) {
    const __m512i both = (__m512i)_mm512_cvtne2ps_pbh((__m512)b, (__m512)a);
    _mm512_store_si512(to, both);
    a = a - reinterpret_cast<vf>(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(both)), 16));
    b = b - reinterpret_cast<vf>(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(both, 1)), 16));
  }
}

REGARD_INLINE vf load_some(const float* x, int64_t count) {
  const __mmask16 mask = count >= W ? 0xffff : count <= 0 ? 0 : static_cast<__mmask16>((1u << count) - 1);
  return reinterpret_cast<vf>(_mm512_maskz_loadu_ps(mask, x));
}

// Rows first … last-1 of one tile, side by side: what is written lies together.
static void prepare_parts(const InputRows& rows, int64_t first, int64_t last, char* to) {
  const int64_t depth = rows.depth, steps = filled(depth, PAIRED) / PAIRED;
  char* at = to + first / TILE * steps * 3 * TILE_BYTES;
  const float* x = rows.x + first * rows.x_row;
  float factor[TILE];
  const int count = static_cast<int>(last - first);
  for (int i = 0; i < count; ++i) factor[i] = rows.gain ? norm_factor(x + i * rows.x_row, depth, rows.eps) : 1;
  for (int64_t k = 0; k < depth; k += PAIRED, at += 3 * TILE_BYTES) {
    vf gain[2] = {splat(1.f), splat(1.f)};
    if (rows.gain) gain[0] = load_some(rows.gain + k, depth - k), gain[1] = load_some(rows.gain + k + W, depth - k - W);
    for (int i = 0; i < count; ++i) {
      const float* from = x + i * rows.x_row + k;
      vf a = load_some(from, depth - k), b = load_some(from + W, depth - k - W);
      if (rows.gain) a = gain[0] * (a * splat(factor[i])), b = gain[1] * (b * splat(factor[i]));
      store_parts(a, b, at + i * 64);
    }
  }
}

static void prepare_bytes(const InputRows& rows, int64_t row, char* to) {
  const int64_t depth = rows.depth, steps = filled(depth, QUADS) / QUADS, tiles = (rows.rows + TILE - 1) / TILE;
  const float* x = rows.x + row * rows.x_row;
  if (rows.gain) {
    float* normed = Scratch::mine().floats(Scratch::scaled, static_cast<size_t>(depth));
    normalise(x, rows.gain, depth, rows.eps, normed);
    x = normed;
  }
  vf most = zero();
  for (int64_t k = 0; k < depth; k += W) most = max(most, magnitude(load_some(x + k, depth - k)));
  const float largest = max_of(most);
  const vf inverse = splat(largest > 0 ? 127 / largest : 0);
  char* at = to + row / TILE * steps * TILE_BYTES + row % TILE * 64;
  for (int64_t k = 0; k < steps * QUADS; k += W) {
    const __m512i whole = _mm512_cvtps_epi32((__m512)(load_some(x + k, depth - k) * inverse));
    _mm_store_si128(reinterpret_cast<__m128i*>(at + k / QUADS * TILE_BYTES + k % QUADS), _mm512_cvtepi32_epi8(whole));
  }
  reinterpret_cast<float*>(to + tiles * steps * TILE_BYTES)[row] = largest / 127;
}

static int64_t prepared_tiles(Stored stored, int64_t rows, int64_t depth) {
  const int64_t tiles = (rows + TILE - 1) / TILE;
  switch (stored) {
    case Stored::i8: return 0;
    case Stored::i8x8: return tiles * (filled(depth, QUADS) / QUADS * TILE_BYTES + 64);
    default: return tiles * filled(depth, PAIRED) / PAIRED * 3 * TILE_BYTES;
  }
}

static void prepare_tiles(const InputRows& rows, Stored stored, int64_t first, int64_t last, void* to) {
  if (stored == Stored::i8) return prepare(rows, stored, first, last, to);
  if (stored != Stored::i8x8) {
    for (int64_t row = first; row < last; row += TILE)
      prepare_parts(rows, row, row + TILE < last ? row + TILE : last, static_cast<char*>(to));
  } else {
    for (int64_t row = first; row < last; ++row) prepare_bytes(rows, row, static_cast<char*>(to));
  }
}

// ---- weights ---------------------------------------------------------------------------------------------------------

// Weights are fetched ahead to the second cache, a few lines after every tile: many at once would hold up the rows.
constexpr int64_t WEIGHTS_AHEAD = 16384;  // bytes

REGARD_INLINE void fetch_lines(const char* at) {
#pragma GCC unroll 4
  for (int line = 0; line < 4; ++line) __builtin_prefetch(at + line * 64, 0, 2);
}

// 32 k × 32 outputs of float32 [32][32] as three lots of paired bfloat16, STEP_BYTES apart. Cut off, not rounded, so
// that each rest is exact.
REGARD_INLINE void split_weights(const float* w, int64_t left, char* to) {
  const __m512i high = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
  for (int64_t pair = 0; pair < PAIRED / 2; ++pair, w += 2 * PANEL) {
    fetch_lines(reinterpret_cast<const char*>(w) + WEIGHTS_AHEAD);
    for (int n = 0; n < 2; ++n) {
      vf a = 2 * pair < left ? load(w + n * W) : zero(), b = 2 * pair + 1 < left ? load(w + PANEL + n * W) : zero();
      for (int part = 0; part < 3; ++part) {
        const __m512i a_high = _mm512_and_si512(as_bits(a), high), b_high = _mm512_and_si512(as_bits(b), high);
        _mm512_store_si512(to + part * STEP_BYTES + pair * 128 + n * 64,
                           _mm512_or_si512(_mm512_srli_epi32(as_bits(a), 16), b_high));
        a = a - reinterpret_cast<vf>(a_high);
        b = b - reinterpret_cast<vf>(b_high);
      }
    }
  }
}

// ---- products --------------------------------------------------------------------------------------------------------

// Tiles 0 … 3 hold the sums (row tile, half of the panel); 4 and 5 rows, 6 and 7 weights. PAIR: two row tiles.
template <bool PAIR, bool FETCH>
REGARD_INLINE void add_parts(const char* x, int64_t x_tile, int parts, const char* w) {
  const char* ahead = w + WEIGHTS_AHEAD;
  const auto fetch = [&] {
    if (FETCH) fetch_lines(ahead);
    ahead += 256;
  };
  _tile_loadd(6, w, 128);
  fetch();
  _tile_loadd(7, w + 64, 128);
  fetch();
  for (int part = 0; part < parts; ++part, x += TILE_BYTES) {
    _tile_loadd(4, x, 64);
    _tile_dpbf16ps(0, 4, 6);
    fetch();
    _tile_dpbf16ps(1, 4, 7);
    if (PAIR) {
      _tile_loadd(5, x + x_tile, 64);
      _tile_dpbf16ps(2, 5, 6);
      fetch();
      _tile_dpbf16ps(3, 5, 7);
    } else {
      fetch();
    }
  }
}

REGARD_INLINE void clear_sums() {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}

template <bool PAIR>
REGARD_INLINE void store_sums(void* z) {  // [32][32] of four bytes
  char* to = static_cast<char*>(z);
  _tile_stored(0, to, PANEL * 4);
  _tile_stored(1, to + 64, PANEL * 4);
  if (PAIR) {
    _tile_stored(2, to + TILE * PANEL * 4, PANEL * 4);
    _tile_stored(3, to + TILE * PANEL * 4 + 64, PANEL * 4);
  }
}

template <bool PAIR>
REGARD_STEP void sum_bf16(const char* x, const char* w, int64_t depth, float* z) {
  const int64_t steps = filled(depth, PAIRED) / PAIRED, x_tile = steps * 3 * TILE_BYTES;
  clear_sums();
  for (int64_t step = 0; step < steps; ++step, w += STEP_BYTES, x += 3 * TILE_BYTES) {
    add_parts<PAIR, true>(x, x_tile, 3, w);
  }
  store_sums<PAIR>(z);
}

// split: where the weights' parts are, or go where `fresh`; STAY: every step's at a place of its own.
template <bool PAIR>
REGARD_STEP void sum_f32(const char* x, const float* w, int64_t depth, char* split, bool fresh, bool stay, float* z) {
  const int64_t steps = filled(depth, PAIRED) / PAIRED, x_tile = steps * 3 * TILE_BYTES;
  clear_sums();
  for (int64_t step = 0; step < steps; ++step, x += 3 * TILE_BYTES) {
    char* parts = split + (stay ? step : step % 2) * 3 * STEP_BYTES;
    if (fresh) {
      const float* from = w + step * PAIRED * PANEL;
      split_weights(from, depth - step * PAIRED, parts);
    }
    for (int part = 0; part < 3; ++part) add_parts<PAIR, false>(x, x_tile, 3 - part, parts + part * STEP_BYTES);
  }
  store_sums<PAIR>(z);
}

template <bool PAIR>
REGARD_STEP void sum_bytes(const char* x, const char* w, int64_t depth, int* z) {
  const int64_t steps = filled(depth, QUADS) / QUADS, x_tile = steps * TILE_BYTES;
  clear_sums();
  for (int64_t step = 0; step < steps; ++step, w += STEP_BYTES, x += TILE_BYTES) {
    const char* ahead = w + WEIGHTS_AHEAD;
    const auto fetch = [&] {
      fetch_lines(ahead);
      fetch_lines(ahead + 256);
      ahead += 512;
    };
    _tile_loadd(6, w, 128);
    fetch();
    _tile_loadd(7, w + 64, 128);
    fetch();
    _tile_loadd(4, x, 64);
    _tile_dpbssd(0, 4, 6);
    fetch();
    _tile_dpbssd(1, 4, 7);
    if (PAIR) {
      _tile_loadd(5, x + x_tile, 64);
      _tile_dpbssd(2, 5, 6);
      _tile_dpbssd(3, 5, 7);
    }
    fetch();
  }
  store_sums<PAIR>(z);
}

static void scale_sums(const PackedProduct& call, int64_t panel, int64_t first_row, int rows, float* z) {
  const int64_t depth = filled(call.weights.depth, QUADS), tiles = (call.rows + TILE - 1) / TILE;
  const float* of_row =
      reinterpret_cast<const float*>(static_cast<const char*>(call.x) + tiles * depth / QUADS * TILE_BYTES);
  alignas(64) float of_output[PANEL] = {};
  const int64_t first = panel * PANEL;
  for (int64_t n = 0; n < PANEL && first + n < call.weights.outputs; ++n) of_output[n] = call.weights.scale[first + n];
  for (int m = 0; m < rows; ++m)
    for (int n = 0; n < PANEL; n += W) {
      const vf sum = to_float(load(reinterpret_cast<const int*>(z) + m * PANEL + n));
      store(z + m * PANEL + n, sum * (splat(of_row[first_row + m]) * load(of_output + n)));
    }
}

// Rows first … last-1 (whole tiles but at the end) of one panel.
static void panel_of_rows(const PackedProduct& call, Unit& unit, int64_t panel, int64_t first, int64_t last) {
  const Weights& weights = call.weights;
  const int64_t depth = weights.depth;
  const bool bytes = weights.stored == Stored::i8x8, floats = weights.stored == Stored::f32;
  const int64_t x_tile =
      bytes ? filled(depth, QUADS) / QUADS * TILE_BYTES : filled(depth, PAIRED) / PAIRED * 3 * TILE_BYTES;
  const int64_t panel_bytes = bytes    ? filled(depth, QUADS) * PANEL
                              : floats ? depth * PANEL * 4
                                       : filled(depth, PAIRED) * PANEL * 2;
  const char* w = static_cast<const char*>(weights.panels) + panel * panel_bytes;
  const bool stay = last - first > 2 * TILE;
  char* split = nullptr;
  if (floats)
    split = reinterpret_cast<char*>(Scratch::mine().floats(
        Scratch::panel, static_cast<size_t>((stay ? filled(depth, PAIRED) / PAIRED : 2) * 3 * STEP_BYTES / 4)));
  alignas(64) float z[2 * TILE * PANEL];
  for (int64_t row = first; row < last; row += 2 * TILE) {
    const int count = static_cast<int>(last - row < 2 * TILE ? last - row : 2 * TILE);
    const char* x = static_cast<const char*>(call.x) + row / TILE * x_tile;
    const bool pair = count > TILE;
    unit.shape(count);
    if (bytes) {
      int* whole = reinterpret_cast<int*>(z);
      pair ? sum_bytes<true>(x, w, depth, whole) : sum_bytes<false>(x, w, depth, whole);
      scale_sums(call, panel, row, count, z);
    } else if (floats) {
      const float* from = reinterpret_cast<const float*>(w);
      const bool fresh = row == first;
      pair ? sum_f32<true>(x, from, depth, split, fresh, stay, z)
           : sum_f32<false>(x, from, depth, split, fresh, stay, z);
    } else {
      pair ? sum_bf16<true>(x, w, depth, z) : sum_bf16<false>(x, w, depth, z);
    }
    finish(call, panel, row, count, z);
  }
}

static void multiply_tiles(const PackedProduct& call, int64_t first_panel, int64_t last_panel) {
  if (call.weights.stored == Stored::i8) return multiply(call, first_panel, last_panel);
  Unit unit;
  for (int64_t panel = first_panel; panel < last_panel; ++panel) panel_of_rows(call, unit, panel, 0, call.rows);
}

}  // namespace regard::REGARD_ISA
