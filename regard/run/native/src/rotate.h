// Queries and keys of one row: normalised where they are, turned by their position, keys and values put into pages.
//
//   x'[d] = x[d] · cos[d] - x[d + D/2] · sin[d],   x'[d + D/2] = x[d + D/2] · cos[d + D/2] + x[d] · sin[d + D/2]
#pragma once
#include "layer.h"
#include "rows.h"

namespace regard::REGARD_ISA {

REGARD_INLINE void turn(float* x, const float* cos, const float* sin, int64_t width) {
  const int64_t half = width / 2;
  int64_t d = 0;
  for (; d + W <= half; d += W) {
    const vf a = load(x + d), b = load(x + d + half);
    store(x + d, a * load(cos + d) - b * load(sin + d));
    store(x + d + half, b * load(cos + d + half) + a * load(sin + d + half));
  }
  for (; d < half; ++d) {
    const float a = x[d], b = x[d + half];
    x[d] = a * cos[d] - b * sin[d];
    x[d + half] = b * cos[d + half] + a * sin[d + half];
  }
}

REGARD_INLINE void put(const float* x, int64_t count, int64_t stride, Type type, void* to) {
  uint16_t* half = static_cast<uint16_t*>(to);
  switch (type) {
    case Type::bf16:
      for (int64_t d = 0; d < count; ++d) half[d * stride] = to_bf16(x[d]);
      break;
    case Type::f16:
      for (int64_t d = 0; d < count; ++d) half[d * stride] = to_f16(x[d]);
      break;
    default:
      for (int64_t d = 0; d < count; ++d) static_cast<float*>(to)[d * stride] = x[d];
  }
}

static void rotate(const Layer& layer, const Step& step, const View& keys, const View& values, int64_t first,
                   int64_t last) {
  const int64_t width = layer.key_width, page_size = keys.shape[3], bytes = size_of(keys.type);
  for (int64_t row = first; row < last; ++row) {
    float* x = step.joined + row * step.joined_row;
    const float *cos = step.cos + row * width, *sin = step.sin + row * width;
    for (int64_t head = 0; head < layer.heads + layer.groups; ++head) {
      float* at = x + head * width;
      const float* gain = head < layer.heads ? layer.query_gain : layer.key_gain;
      if (gain) normalise(at, gain, width, layer.eps, at);
      turn(at, cos, sin, width);
    }
    const int64_t slot = step.slots[row], page = slot / page_size, token = slot % page_size;
    const float* k = x + layer.heads * width;
    const float* v = k + layer.groups * width;
    for (int64_t g = 0; g < layer.groups; ++g, k += width, v += layer.value_width) {
      char* to = reinterpret_cast<char*>(keys.address) + (keys.offset(page, g) + token) * bytes;
      put(k, width, page_size, keys.type, to);
      put(v, layer.value_width, 1, values.type,
          reinterpret_cast<char*>(values.address) + values.offset(page, g, token) * bytes);
    }
  }
}

}  // namespace regard::REGARD_ISA
