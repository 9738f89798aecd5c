// One look at a row of logits each.
#pragma once
#include "choose.h"
#include "rowstate.h"

namespace regard::REGARD_ISA {

static void maxima(const float* x, int64_t count, float* of_group) {
  for (int64_t first = 0; first < count; first += GROUP, x += GROUP, ++of_group) {
    const int64_t size = count - first < GROUP ? count - first : GROUP;
    vf most[4] = {splat(minus_infinity()), splat(minus_infinity()), splat(minus_infinity()), splat(minus_infinity())};
    int64_t i = 0;
    for (; i + 4 * W <= size; i += 4 * W)
      for (int v = 0; v < 4; ++v) most[v] = max(load(x + i + v * W), most[v]);
    float found = max_of(max(max(most[0], most[1]), max(most[2], most[3])));
    for (; i < size; ++i) found = x[i] > found ? x[i] : found;
    *of_group = found;
  }
}

static int64_t above(const float* x, int64_t count, float least, int* index) {
  int64_t found = 0, i = 0;
  for (; i + 4 * W <= count; i += 4 * W) {
    vf most = load(x + i);
    for (int v = 1; v < 4; ++v) most = max(most, load(x + i + v * W));
    if (bits(less(most, splat(least))) == (W == 32 ? ~0u : (1u << W) - 1)) continue;
    for (int64_t j = i; j < i + 4 * W; ++j)
      if (x[j] >= least) index[found++] = static_cast<int>(j);
  }
  for (; i < count; ++i)
    if (x[i] >= least) index[found++] = static_cast<int>(i);
  return found;
}

static void sums(const float* x, int64_t count, float most, float inverse, double* of_block) {
  for (int64_t first = 0; first < count; first += BLOCK, x += BLOCK, ++of_block) {
    const int64_t size = count - first < BLOCK ? count - first : BLOCK;
    vf sum[4] = {zero(), zero(), zero(), zero()};
    int64_t i = 0;
    for (; i + 4 * W <= size; i += 4 * W) {
      vf e[4];
      for (int v = 0; v < 4; ++v) e[v] = max((load(x + i + v * W) - splat(most)) * splat(inverse), splat(LOWEST));
      exponentials_of(e);
      for (int v = 0; v < 4; ++v) sum[v] = sum[v] + e[v];
    }
    double total = sum_of((sum[0] + sum[1]) + (sum[2] + sum[3]));
    for (; i < size; ++i) total += exponential(max(splat((x[i] - most) * inverse), splat(LOWEST)))[0];
    *of_block = total;
  }
}

}  // namespace regard::REGARD_ISA
