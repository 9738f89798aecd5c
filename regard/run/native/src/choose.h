// A token for every row of logits: the best, or one drawn as regard/serve/sampler.py says, without sorting the row.
#pragma once
#include <cstdint>
#include <vector>

#include "call.h"

namespace regard {

constexpr int64_t GROUP = 128;  // neighbouring logits of which the largest is noted
constexpr int64_t BLOCK = 1024; // neighbouring logits whose exponentials are summed

struct Draw {
  double temperature = 0;  // 0: the best
  int64_t top_k = 0;       // 0: all
  double top_p = 1, min_p = 0, number = 0;
  float repetition = 1, presence = 0, frequency = 0;
  std::vector<int64_t> prompt, output;  // what penalties are about
};

// Passes over one row that every instruction set has its own of.
struct Passes {
  void (*maxima)(const float* x, int64_t count, float* of_group);
  int64_t (*above)(const float* x, int64_t count, float least, int* index);  // x >= least, in order
  void (*sums)(const float* x, int64_t count, float most, float inverse,
               double* of_block);  // Σ e^((x - most) · inverse)
};

// logits [rows][count], changed by penalties; tokens [rows].
void choose_tokens(float* logits, int64_t row, int64_t count, const std::vector<Draw>& draws, int64_t* tokens,
                   int threads);

}  // namespace regard
