// Numbers as JSON text.
#pragma once
#include <array>
#include <cstdint>
#include <string>

namespace regard {

// [[[…]]] of a strided array of three dimensions; floats with six decimals, trailing zeros left out.
std::string json_of(const float* x, const std::array<int64_t, 3>& shape, const std::array<int64_t, 3>& stride);
std::string json_of(const int* x, const std::array<int64_t, 3>& shape, const std::array<int64_t, 3>& stride);

}  // namespace regard
