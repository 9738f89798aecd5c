#include "numbers.h"

#include <cmath>

namespace regard {
namespace {

void digits(std::string& to, uint64_t x) {
  char room[20];
  int n = 0;
  do room[n++] = static_cast<char>('0' + x % 10);
  while (x /= 10);
  while (n > 0) to.push_back(room[--n]);
}

void number(std::string& to, int x) {
  if (x < 0) to.push_back('-');
  digits(to, x < 0 ? uint64_t(0) - static_cast<uint64_t>(x) : static_cast<uint64_t>(x));
}

void number(std::string& to, float x) {
  if (!std::isfinite(x) || std::fabs(x) > 1e12f) {
    to += "null";
    return;
  }
  const int64_t millionths = std::llrint(static_cast<double>(x) * 1e6);
  const uint64_t size = static_cast<uint64_t>(millionths < 0 ? -millionths : millionths);
  if (millionths < 0) to.push_back('-');
  digits(to, size / 1000000);
  to.push_back('.');
  uint64_t rest = size % 1000000;
  char room[6];
  int n = 6;
  for (int i = 5; i >= 0; --i, rest /= 10) room[i] = static_cast<char>('0' + rest % 10);
  while (n > 1 && room[n - 1] == '0') --n;
  to.append(room, static_cast<size_t>(n));
}

template <class T>
std::string lists(const T* x, const std::array<int64_t, 3>& shape, const std::array<int64_t, 3>& stride) {
  std::string to;
  to.reserve(static_cast<size_t>(shape[0] * (shape[1] * (shape[2] * 10 + 4) + 4) + 4));
  to.push_back('[');
  for (int64_t a = 0; a < shape[0]; ++a) {
    to += a ? ", [" : "[";
    for (int64_t b = 0; b < shape[1]; ++b) {
      to += b ? ", [" : "[";
      for (int64_t c = 0; c < shape[2]; ++c) {
        if (c) to += ", ";
        number(to, x[a * stride[0] + b * stride[1] + c * stride[2]]);
      }
      to.push_back(']');
    }
    to.push_back(']');
  }
  to.push_back(']');
  return to;
}

}  // namespace

std::string json_of(const float* x, const std::array<int64_t, 3>& shape, const std::array<int64_t, 3>& stride) {
  return lists(x, shape, stride);
}

std::string json_of(const int* x, const std::array<int64_t, 3>& shape, const std::array<int64_t, 3>& stride) {
  return lists(x, shape, stride);
}

}  // namespace regard
