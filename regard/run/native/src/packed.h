// A product of few rows with packed weights, y = x · wᵀ + b, and what can follow it at once.
//
// Weights lie in panels of 32 outputs, the last panel filled up with zeros:
//   f32, i8   [N/32][K][32]             i8 with one scale per output, x as it is
//   bf16      [N/32][K/2][32][2]        K filled up to a multiple of 32: a pair of k side by side
//   i8x8      [N/32][K/4][32][4]        K filled up to a multiple of 64; rows of x are rounded to int8 too
#pragma once
#include "call.h"

namespace regard {

constexpr int PANEL = 32;  // outputs side by side

enum class Stored : int { f32 = 0, i8 = 1, bf16 = 2, i8x8 = 3 };

// store: y = z; add: y += z; gated: outputs come as 16 gates and their 16 values, y = z_g / (1 + e^-z_g) · z_v.
enum class Into : int { store = 0, add = 1, gated = 2 };

struct Weights {
  const void* panels = nullptr;
  Stored stored = Stored::f32;
  const float *scale = nullptr, *bias = nullptr;  // [N] or null
  int64_t depth = 0, outputs = 0;
};

// Rows of x as a product reads them; with a gain [K] normalised first: x / sqrt(mean x² + eps) · gain.
struct InputRows {
  const float* x = nullptr;
  int64_t x_row = 0, rows = 0, depth = 0;
  const float* gain = nullptr;
  float eps = 0;
};

struct PackedProduct {
  Weights weights;
  const void* x;  // prepared, or float32 rows where nothing is to be prepared
  int64_t x_row, rows;
  float* y;
  int64_t y_row;
  Into into;
};

// How one instruction set prepares rows and multiplies them. Each row's bits depend on that row alone.
struct Products {
  const char* name;
  int64_t (*prepared_bytes)(Stored, int64_t rows, int64_t depth);  // 0: rows are read as they lie
  void (*prepare)(const InputRows&, Stored, int64_t first, int64_t last, void* to);
  void (*multiply)(const PackedProduct&, int64_t first_panel, int64_t last_panel);
};

// The products of the machine; of its matrix unit where it has one and REGARD_NATIVE_ISA does not say otherwise.
const Products& products();

// All rows by the calling thread, a block of them at a time.
void multiply_rows(const Weights& weights, const InputRows& rows, float* y, int64_t y_row, Into into);

// Few rows: threads share the panels, and each prepares the rows for itself, for they are few and near. Many: threads
// share the rows, and each reads all weights.
void multiply_packed(const Weights& weights, const InputRows& rows, float* y, int64_t y_row, Into into, int threads);

// How many threads share so many rows, and the first row of each.
int64_t shares_of(int64_t rows, int threads);
int64_t share_of(int64_t rows, int64_t task, int64_t tasks);

}  // namespace regard
