// A product of few rows with packed weights.
#pragma once
#include "call.h"

namespace regard {

constexpr int PANEL = 32;  // outputs side by side

struct PackedProduct {
  const void* weights;  // [N/32][K][32], float32 or int8, the last panel filled up with zeros
  bool int8;
  const float *scale, *bias;  // [N] or null
  const float* x;
  float* y;
  int64_t rows, depth, outputs, x_row, y_row;
};

void multiply_packed(const PackedProduct& call, int threads);

}  // namespace regard
