// Rows before a product (normalised, rounded to int8) and results after it (bias, sum, gate): every instruction set.
#pragma once
#include <cmath>

#include "packed.h"
#include "scratch.h"
#include "widen.h"

namespace regard::REGARD_ISA {

// What a row is multiplied by so that its mean square is 1: 1 / sqrt(Σ x² / K + eps).
REGARD_INLINE float norm_factor(const float* x, int64_t depth, float eps) {
  vf sum[4] = {zero(), zero(), zero(), zero()};
  int64_t k = 0;
  for (; k + 4 * W <= depth; k += 4 * W)
    for (int i = 0; i < 4; ++i) sum[i] = fma(load(x + k + i * W), load(x + k + i * W), sum[i]);
  for (; k + W <= depth; k += W) sum[0] = fma(load(x + k), load(x + k), sum[0]);
  float total = sum_of((sum[0] + sum[1]) + (sum[2] + sum[3]));
  for (; k < depth; ++k) total += x[k] * x[k];
  return 1 / std::sqrt(total / static_cast<float>(depth) + eps);
}

// to[k] = x[k] · factor · gain[k], as transformers writes it: the gain last.
REGARD_INLINE void normalise(const float* x, const float* gain, int64_t depth, float eps, float* to) {
  const float factor = norm_factor(x, depth, eps);
  int64_t k = 0;
  for (; k + W <= depth; k += W) store(to + k, load(gain + k) * (load(x + k) * splat(factor)));
  for (; k < depth; ++k) to[k] = gain[k] * (x[k] * factor);
}

constexpr int64_t QUADS = 64;  // int8 rows are filled up with zeros to a multiple of this

REGARD_INLINE int64_t filled(int64_t depth, int64_t to) { return (depth + to - 1) / to * to; }

// A row as int8 with one scale, max |x| / 127; to(k, value) takes each number.
template <class F>
REGARD_INLINE float round_row(const float* x, int64_t depth, F&& to) {
  float most = 0;
  for (int64_t k = 0; k < depth; ++k) most = std::fabs(x[k]) > most ? std::fabs(x[k]) : most;
  const float scale = most / 127, inverse = most > 0 ? 127 / most : 0;
  for (int64_t k = 0; k < depth; ++k) to(k, static_cast<int8_t>(std::nearbyint(x[k] * inverse)));
  return scale;
}

// z[m][0 … 31] -> y. count: outputs of this panel. Bias and gate as packed.h says.
static void finish(const PackedProduct& call, int64_t panel, int64_t first_row, int rows, float* z) {
  const Weights& w = call.weights;
  const int64_t first = panel * PANEL, count = w.outputs - first < PANEL ? w.outputs - first : PANEL;
  const bool gated = call.into == Into::gated;
  for (int m = 0; m < rows; ++m, z += PANEL) {
    if (w.bias) {
      for (int64_t n = 0; n < count; ++n) z[n] += w.bias[first + n];
    }
    float* y = call.y + (first_row + m) * call.y_row + (gated ? first / 2 : first);
    if (gated) {
      for (int n = 0; n < PANEL / 2; n += W) {
        const vf g = load(z + n);
        const vf near = g / (splat(1.f) + exponential(min(max(zero() - g, splat(-87.f)), splat(88.f))));
        store(y + n, load(z + PANEL / 2 + n) * select(less(g, splat(-88.f)), zero(), near));
      }
    } else if (count == PANEL && call.into == Into::add) {
      for (int n = 0; n < PANEL; n += W) store(y + n, load(y + n) + load(z + n));
    } else if (count == PANEL) {
      for (int n = 0; n < PANEL; n += W) store(y + n, load(z + n));
    } else {
      for (int64_t n = 0; n < count; ++n) y[n] = call.into == Into::add ? y[n] + z[n] : z[n];
    }
  }
}

}  // namespace regard::REGARD_ISA
