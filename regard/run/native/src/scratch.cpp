#include "scratch.h"

#include <cstdlib>
#include <new>

namespace regard {

Scratch::~Scratch() {
  for (void* memory : memory_) std::free(memory);
}

float* Scratch::floats(Slot slot, size_t count) {
  size_t bytes = (count * sizeof(float) + 63) / 64 * 64;
  if (bytes > bytes_[slot]) {
    std::free(memory_[slot]);
    memory_[slot] = nullptr;
    bytes_[slot] = 0;
    memory_[slot] = std::aligned_alloc(64, bytes);
    if (memory_[slot] == nullptr) throw std::bad_alloc();
    bytes_[slot] = bytes;
  }
  return static_cast<float*>(memory_[slot]);
}

Scratch& Scratch::mine() {
  static thread_local Scratch scratch;
  return scratch;
}

}  // namespace regard
