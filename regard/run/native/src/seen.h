// What rows of a step attended to: the weights of one row over all heads, reduced at once (regard/serve/look.py).
//
//   s = scale · q·k (softcap), a = e^(s - m) / Σ (with the sink), of each head or as the mean over heads:
//   the k largest with their keys, -Σ a ln a, the mass of the first keys and of spans, and Σ over rows per key
#pragma once
#include <vector>

#include "call.h"

namespace regard {

struct SeenRow {
  int64_t row;       // among the step's queries
  int64_t position;  // keys 0 … position may be seen
  int64_t result;    // where its results go
};

struct SeenSequence {  // rows of one sequence, in order
  const int* pages;    // its block table
  std::vector<SeenRow> rows;
  std::vector<int64_t> spans;  // begin, end of each
  double* received = nullptr;  // [layers][outputs][received_keys]
  int64_t received_keys = 0;
};

struct SeenStep {
  std::vector<SeenSequence> sequences;
  std::vector<int64_t> heads;  // which, in order; empty: all
  bool mean = true;
  int64_t layers = 0, top_k = 0, sinks = 0, spans = 0;
  // Results [rows][layers][outputs][…], absent where not asked for.
  float *top = nullptr, *entropy = nullptr, *sink = nullptr, *messages = nullptr;
  int* top_keys = nullptr;
};

struct SeenLayer {
  int64_t index = 0;   // among the layers asked for
  View q, key_pages;   // [T,H,Dk], [pages,G,Dk,page_size]
  const float* sink = nullptr;
  float scale = 1, softcap = 0;  // 0: none
  int64_t window = 0;            // 0: none
};

void see(const SeenStep& step, const SeenLayer& layer, int threads);

}  // namespace regard
