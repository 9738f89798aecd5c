// The vector of the instruction set being compiled: 16, 8 or 4 floats. Everything above this file is written once.
#pragma once
#include <cstdint>
#include <cstring>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "call.h"

namespace regard::REGARD_ISA {

#if defined(__AVX512F__)
constexpr int W = 16;
#elif defined(__AVX2__)
constexpr int W = 8;
#else
constexpr int W = 4;
#endif

typedef float vf __attribute__((vector_size(4 * W)));
typedef int32_t vi __attribute__((vector_size(4 * W)));
typedef float vf_any __attribute__((vector_size(4 * W), aligned(4), may_alias));
typedef int32_t vi_any __attribute__((vector_size(4 * W), aligned(4), may_alias));

REGARD_INLINE vf load(const float* p) { return *reinterpret_cast<const vf_any*>(p); }
REGARD_INLINE vi load(const int* p) { return *reinterpret_cast<const vi_any*>(p); }
REGARD_INLINE void store(float* p, vf x) { *reinterpret_cast<vf_any*>(p) = x; }
REGARD_INLINE void store(int* p, vi x) { *reinterpret_cast<vi_any*>(p) = x; }
REGARD_INLINE vf zero() { return vf{}; }
REGARD_INLINE vf as_float(vi x) { return reinterpret_cast<vf>(x); }
REGARD_INLINE vi as_int(vf x) { return reinterpret_cast<vi>(x); }
REGARD_INLINE vf to_float(vi x) { return __builtin_convertvector(x, vf); }

#if defined(__AVX512F__)
typedef __mmask16 vm;
REGARD_INLINE vf splat(float x) { return reinterpret_cast<vf>(_mm512_set1_ps(x)); }
REGARD_INLINE vi splat(int x) { return reinterpret_cast<vi>(_mm512_set1_epi32(x)); }
REGARD_INLINE vf fma(vf a, vf b, vf c) {
  return reinterpret_cast<vf>(_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c));
}
REGARD_INLINE vf max(vf a, vf b) { return reinterpret_cast<vf>(_mm512_max_ps((__m512)a, (__m512)b)); }
REGARD_INLINE vf min(vf a, vf b) { return reinterpret_cast<vf>(_mm512_min_ps((__m512)a, (__m512)b)); }
REGARD_INLINE vm less(vf a, vf b) { return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_LT_OQ); }
REGARD_INLINE vm less(vi a, vi b) { return _mm512_cmplt_epi32_mask((__m512i)a, (__m512i)b); }
REGARD_INLINE vm equal(vi a, vi b) { return _mm512_cmpeq_epi32_mask((__m512i)a, (__m512i)b); }
REGARD_INLINE vm both(vm a, vm b) { return static_cast<vm>(a & b); }
REGARD_INLINE vm either(vm a, vm b) { return static_cast<vm>(a | b); }
REGARD_INLINE vm nowhere() { return 0; }
REGARD_INLINE vf select(vm m, vf a, vf b) {
  return reinterpret_cast<vf>(_mm512_mask_blend_ps(m, (__m512)b, (__m512)a));
}
REGARD_INLINE unsigned bits(vm m) { return m; }
REGARD_INLINE vf add_where(vm m, vf sum, vf x) {
  return reinterpret_cast<vf>(_mm512_mask_add_ps((__m512)sum, m, (__m512)sum, (__m512)x));
}
REGARD_INLINE vf gather(const float* base, vi index) {
  return reinterpret_cast<vf>(_mm512_i32gather_ps((__m512i)index, base, 4));
}
#elif defined(__AVX2__)
typedef vi vm;
REGARD_INLINE vf splat(float x) { return reinterpret_cast<vf>(_mm256_set1_ps(x)); }
REGARD_INLINE vi splat(int x) { return reinterpret_cast<vi>(_mm256_set1_epi32(x)); }
REGARD_INLINE vf fma(vf a, vf b, vf c) {
  return reinterpret_cast<vf>(_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c));
}
REGARD_INLINE vf max(vf a, vf b) { return reinterpret_cast<vf>(_mm256_max_ps((__m256)a, (__m256)b)); }
REGARD_INLINE vf min(vf a, vf b) { return reinterpret_cast<vf>(_mm256_min_ps((__m256)a, (__m256)b)); }
REGARD_INLINE unsigned bits(vm m) { return static_cast<unsigned>(_mm256_movemask_ps((__m256)m)); }
REGARD_INLINE vf gather(const float* base, vi index) {
  return reinterpret_cast<vf>(_mm256_i32gather_ps(base, (__m256i)index, 4));
}
#else
typedef vi vm;
REGARD_INLINE vf splat(float x) { return vf{x, x, x, x}; }
REGARD_INLINE vi splat(int x) { return vi{x, x, x, x}; }
REGARD_INLINE vf fma(vf a, vf b, vf c) { return a * b + c; }
REGARD_INLINE vf max(vf a, vf b) { return a > b ? a : b; }
REGARD_INLINE vf min(vf a, vf b) { return a < b ? a : b; }
REGARD_INLINE unsigned bits(vm m) { return static_cast<unsigned>((m[0] & 1) | (m[1] & 2) | (m[2] & 4) | (m[3] & 8)); }
REGARD_INLINE vf gather(const float* base, vi index) {
  return vf{base[index[0]], base[index[1]], base[index[2]], base[index[3]]};
}
#endif

#if !defined(__AVX512F__)
REGARD_INLINE vm less(vf a, vf b) { return a < b; }
REGARD_INLINE vm less(vi a, vi b) { return a < b; }
REGARD_INLINE vm equal(vi a, vi b) { return a == b; }
REGARD_INLINE vm both(vm a, vm b) { return a & b; }
REGARD_INLINE vm either(vm a, vm b) { return a | b; }
REGARD_INLINE vm nowhere() { return vm{}; }
REGARD_INLINE vf select(vm m, vf a, vf b) { return m ? a : b; }
REGARD_INLINE vf add_where(vm m, vf sum, vf x) { return sum + as_float(as_int(x) & m); }
#endif

REGARD_INLINE vf magnitude(vf x) { return as_float(as_int(x) & splat(0x7fffffff)); }

constexpr float LOWEST = -104.f;  // e^x rounds to 0 below it

// e^x for -104 <= x <= 88, relative error below 2e-7; exactly 1 at 0. Below about -87.3, where e^x is not a normal
// float32, exactly 0. The polynomial is the minimax one of degree 5 on |r| <= ln 2 / 2. N vectors go in step, so that
// their chains of dependent operations overlap.
template <int N>
REGARD_INLINE void exponentials_of(vf (&x)[N]) {
  vf shifted[N], n[N], r[N], p[N];
#define REGARD_EACH(statement) \
  _Pragma("GCC unroll 4") for (int v = 0; v < N; ++v) { statement; }
  REGARD_EACH(shifted[v] = fma(x[v], splat(1.44269504f), splat(12582912.f)))  // low bits: round(x / ln 2)
  REGARD_EACH(n[v] = shifted[v] - splat(12582912.f))
  REGARD_EACH(r[v] = fma(n[v], splat(-0.693147182f), x[v]))
  REGARD_EACH(p[v] = fma(r[v], splat(0.00829030666f), splat(0.0418979749f)))
  REGARD_EACH(p[v] = fma(p[v], r[v], splat(0.166676372f)))
  REGARD_EACH(p[v] = fma(p[v], r[v], splat(0.499991506f)))
  REGARD_EACH(p[v] = fma(p[v], r[v], splat(0.999999702f)))
  REGARD_EACH(p[v] = fma(p[v], r[v], splat(1.f)))
#if defined(__AVX512F__)
  REGARD_EACH(x[v] = reinterpret_cast<vf>(_mm512_scalef_ps((__m512)p[v], (__m512)n[v])))  // see FlushTiny
#else
  REGARD_EACH(x[v] = select(less(x[v], splat(-87.33f)), zero(), as_float(as_int(p[v]) + (as_int(shifted[v]) << 23))))
#endif
#undef REGARD_EACH
}

REGARD_INLINE vf exponential(vf x) {
  vf one[1] = {x};
  exponentials_of(one);
  return one[0];
}

// While it lives, this thread's results and operands below the normal float32 range count as 0, as they would cost
// a hundred times as much as others.
class FlushTiny {
 public:
#if defined(__SSE2__)
  FlushTiny() : before_(__builtin_ia32_stmxcsr()) { __builtin_ia32_ldmxcsr(before_ | 0x8040); }
  ~FlushTiny() { __builtin_ia32_ldmxcsr(before_); }

 private:
  unsigned before_;
#else
  FlushTiny() {}
  ~FlushTiny() {}
#endif
};

// tanh x: an odd polynomial near 0, where 1 - 2/(e^2x + 1) would lose digits.
REGARD_INLINE vf hyperbolic_tangent(vf x) {
  const vf size = min(magnitude(x), splat(20.f));
  const vf far = splat(1.f) - splat(2.f) / (exponential(size + size) + splat(1.f));
  const vf z = size * size;
  vf p = fma(z, splat(-5.70498872745e-3f), splat(2.06390887954e-2f));
  p = fma(p, z, splat(-5.37397155531e-2f));
  p = fma(p, z, splat(1.33314422036e-1f));
  p = fma(p, z, splat(-3.33332819422e-1f));
  const vf near = fma(p * z, size, size);
  const vf found = select(less(size, splat(0.625f)), near, far);
  return as_float(as_int(found) | (as_int(x) & splat(static_cast<int>(0x80000000u))));
}

// Sums of the W vectors starting at x (each of W floats), one per lane, by halves in a fixed order.
REGARD_INLINE vf pair_sums(vf a, vf b) {
#if defined(__AVX512F__)
  const vi even = {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30};
  const vi odd = {1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31};
#elif defined(__AVX2__)
  const vi even = {0, 2, 4, 6, 8, 10, 12, 14};
  const vi odd = {1, 3, 5, 7, 9, 11, 13, 15};
#else
  const vi even = {0, 2, 4, 6};
  const vi odd = {1, 3, 5, 7};
#endif
  return __builtin_shuffle(a, b, even) + __builtin_shuffle(a, b, odd);
}

REGARD_INLINE vf lane_sums(const float* x) {
  vf level[W];
  for (int i = 0; i < W; ++i) level[i] = load(x + i * W);
  for (int width = W / 2; width >= 1; width /= 2)
    for (int i = 0; i < width; ++i) level[i] = pair_sums(level[2 * i], level[2 * i + 1]);
  return level[0];
}

// Sum and maximum over the lanes, by halves: each step joins x with itself turned by half of what is left.
#if defined(__AVX512F__)
#define REGARD_TURN(x, by) __builtin_shuffle(x, (vi{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15} + (by)) & 15)
#elif defined(__AVX2__)
#define REGARD_TURN(x, by) __builtin_shuffle(x, (vi{0, 1, 2, 3, 4, 5, 6, 7} + (by)) & 7)
#else
#define REGARD_TURN(x, by) __builtin_shuffle(x, (vi{0, 1, 2, 3} + (by)) & 3)
#endif

REGARD_INLINE float sum_of(vf x) {
  if (W > 8) x = x + REGARD_TURN(x, 8);
  if (W > 4) x = x + REGARD_TURN(x, 4);
  x = x + REGARD_TURN(x, 2);
  x = x + REGARD_TURN(x, 1);
  return x[0];
}

REGARD_INLINE float max_of(vf x) {
  if (W > 8) x = max(x, REGARD_TURN(x, 8));
  if (W > 4) x = max(x, REGARD_TURN(x, 4));
  x = max(x, REGARD_TURN(x, 2));
  x = max(x, REGARD_TURN(x, 1));
  return x[0];
}

// f(N, first) for groups of up to four vectors: N is a constant, so that a group lives in registers.
template <int N>
struct Constant {
  static constexpr int value = N;
};

template <class F>
REGARD_INLINE void in_groups(int vectors, F&& f) {
  for (int first = 0; first < vectors; first += 4) {
    switch (vectors - first) {
      case 1: f(Constant<1>{}, first); break;
      case 2: f(Constant<2>{}, first); break;
      case 3: f(Constant<3>{}, first); break;
      default: f(Constant<4>{}, first); break;
    }
  }
}

}  // namespace regard::REGARD_ISA
