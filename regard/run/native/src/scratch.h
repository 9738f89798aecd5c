// Memory that a thread keeps between calls: numbered slots that only grow.
#pragma once
#include <cstddef>

namespace regard {

class Scratch {
 public:
  enum Slot {
    query,
    scores,
    output,
    keys,
    values,
    state,
    references,
    mask,
    segment,
    pairs,
    labels,
    bins,
    scaled,
    intervals,
    shared,
    rows_q,
    rows_o,
    grads,
    grad_query,
    weights,
    prepared,
    panel,
    slots
  };
  ~Scratch();
  float* floats(Slot slot, size_t count);  // 64-byte aligned, contents undefined
  double* doubles(Slot slot, size_t count) { return reinterpret_cast<double*>(floats(slot, 2 * count)); }
  int* ints(Slot slot, size_t count) { return reinterpret_cast<int*>(floats(slot, count)); }
  static Scratch& mine();                  // this thread's

 private:
  void* memory_[slots] = {};
  size_t bytes_[slots] = {};
};

}  // namespace regard
