// A product of few rows with packed weights.
#pragma once
#include "call.h"

namespace regard {

constexpr int PANEL = 32;  // outputs side by side

enum class Stored : int { f32 = 0, i8 = 1, bf16 = 2 };

struct PackedProduct {
  const void* weights;  // [N/32][K][32], the last panel filled up with zeros
  Stored stored;
  const float *scale, *bias;  // [N] or null
  const float* x;
  float* y;
  int64_t rows, depth, outputs, x_row, y_row;
};

void multiply_packed(const PackedProduct& call, int threads);

}  // namespace regard
