// Reading stored numbers as float32: bfloat16 and float16 are widened on the way in and rounded on the way out.
#pragma once
#include "tile.h"

namespace regard::REGARD_ISA {

REGARD_INLINE float bits_to_float(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}

REGARD_INLINE uint32_t float_to_bits(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}

REGARD_INLINE float from_bf16(uint16_t x) { return bits_to_float(static_cast<uint32_t>(x) << 16); }

REGARD_INLINE uint16_t to_bf16(float x) {  // to nearest, ties to even; NaN stays NaN
  const uint32_t bits = float_to_bits(x);
  if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<uint16_t>((bits >> 16) | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

REGARD_INLINE float from_f16(uint16_t x) {
  const uint32_t sign = static_cast<uint32_t>(x & 0x8000) << 16, rest = x & 0x7fff;
  if (rest >= 0x7c00) return bits_to_float(sign | 0x7f800000 | (rest & 0x3ff) << 13);  // infinity, NaN
  if (rest < 0x400) return bits_to_float(sign | float_to_bits(static_cast<float>(rest) * 0x1p-24f));  // subnormal
  return bits_to_float(sign | ((rest << 13) + (112u << 23)));
}

REGARD_INLINE uint16_t to_f16(float x) {  // to nearest, ties to even
  const uint32_t bits = float_to_bits(x), sign = bits >> 16 & 0x8000, size = bits & 0x7fffffff;
  if (size > 0x7f800000) return static_cast<uint16_t>(sign | 0x7e00);
  if (size >= 0x477ff000) return static_cast<uint16_t>(sign | 0x7c00);  // rounds to infinity
  if (size < 0x38800000) {  // subnormal: the float adder rounds at the right place
    return static_cast<uint16_t>(sign | (float_to_bits(bits_to_float(size) + 0.5f) - 0x3f000000));
  }
  return static_cast<uint16_t>(sign | ((size - 0x38000000 + 0xfff + (size >> 13 & 1)) >> 13));
}

// A stored number of two bytes, by its kind.
struct Bf16 {
  uint16_t bits;
};
struct F16 {
  uint16_t bits;
};

REGARD_INLINE float widened(float x) { return x; }
REGARD_INLINE float widened(Bf16 x) { return from_bf16(x.bits); }
REGARD_INLINE float widened(F16 x) { return from_f16(x.bits); }

// A vector of stored numbers.
REGARD_INLINE vf load_widened(const float* from) { return load(from); }

template <class Half>
REGARD_INLINE vf load_one_by_one(const Half* from) {
  vf x;
  for (int i = 0; i < W; ++i) x[i] = widened(from[i]);
  return x;
}

#if defined(__AVX512F__)
REGARD_INLINE vf load_widened(const Bf16* from) {
  const __m512i bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  return reinterpret_cast<vf>(_mm512_slli_epi32(bits, 16));
}
REGARD_INLINE vf load_widened(const F16* from) {
  return reinterpret_cast<vf>(_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))));
}
#elif defined(__AVX2__)
REGARD_INLINE vf load_widened(const Bf16* from) {
  const __m256i bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  return reinterpret_cast<vf>(_mm256_slli_epi32(bits, 16));
}
REGARD_INLINE vf load_widened(const F16* from) {
  return reinterpret_cast<vf>(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
}
#else
REGARD_INLINE vf load_widened(const Bf16* from) { return load_one_by_one(from); }
REGARD_INLINE vf load_widened(const F16* from) { return load_one_by_one(from); }
#endif

static void widen(const void* from, Type type, int64_t count, float* to) {
  const uint16_t* half = static_cast<const uint16_t*>(from);
  int64_t i = 0;
  switch (type) {
    case Type::bf16:
      for (; i < count; ++i) to[i] = from_bf16(half[i]);
      break;
    case Type::f16:
#if defined(__AVX512F__)
      for (; i + 16 <= count; i += 16)
        _mm512_storeu_ps(to + i, _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(half + i))));
#elif defined(__AVX2__)
      for (; i + 8 <= count; i += 8)
        _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(half + i))));
#endif
      for (; i < count; ++i) to[i] = from_f16(half[i]);
      break;
    default: std::memcpy(to, from, static_cast<size_t>(count) * 4); break;
  }
}

REGARD_INLINE int64_t size_of(Type type) { return type == Type::f32 || type == Type::i32 ? 4 : 2; }

REGARD_INLINE const char* bytes_at(const View& view, int64_t a, int64_t b, int64_t c) {
  return reinterpret_cast<const char*>(view.address) + view.offset(a, b, c) * size_of(view.type);
}

// Rows first … first+count-1 of view[batch][head] as float32: where they lie, or widened into `room` [count][width].
REGARD_INLINE Operand float_rows(const View& view, int64_t batch, int64_t head, int64_t first, int64_t count,
                                 int64_t width, float* room) {
  if (view.type == Type::f32) return {view.at<const float>(batch, head, first), view.stride[2], 1};
  for (int64_t i = 0; i < count; ++i) widen(bytes_at(view, batch, head, first + i), view.type, width, room + i * width);
  return {room, width, 1};
}

}  // namespace regard::REGARD_ISA
