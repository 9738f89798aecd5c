// Memory as a thing to measure and to ask the system for.
#pragma once
#include <cstddef>
#include <cstdint>

namespace regard {

// Asks for large memory pages, which need fewer address translations; whether the system agrees.
bool advise_huge(uintptr_t address, size_t bytes);

// The sum of all floats, read once in order by several threads: the time that reading takes, and nothing else.
double read_floats(const float* from, int64_t count, int threads);

}  // namespace regard
