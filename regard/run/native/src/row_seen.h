// The weights of one row in all heads, and their reductions.
#pragma once
#include "seen.h"
#include "rowstate.h"
#include "scratch.h"
#include "widen.h"

namespace regard::REGARD_ISA {

// Scores of N heads of one group on the keys of one page, scores[n][t]; `later` is fetched meanwhile.
template <int N, class Stored>
REGARD_INLINE void scores_of(const Stored* keys, const Stored* later, int64_t size, int64_t width, const float* query,
                             float* scores, int64_t stride) {
  for (int64_t t = 0; t < size; t += W) {
    vf sum[2][N];  // of even and odd features: two short chains in place of a long one
    for (int n = 0; n < N; ++n) sum[0][n] = sum[1][n] = zero();
    int64_t d = 0;
    for (; d + 2 <= width; d += 2) {
      __builtin_prefetch(later + d * size + t);
      __builtin_prefetch(later + (d + 1) * size + t);
      const vf even = load_widened(keys + d * size + t), odd = load_widened(keys + (d + 1) * size + t);
#pragma GCC unroll 4
      for (int n = 0; n < N; ++n) {
        sum[0][n] = fma(splat(query[n * width + d]), even, sum[0][n]);
        sum[1][n] = fma(splat(query[n * width + d + 1]), odd, sum[1][n]);
      }
    }
    for (; d < width; ++d)
      for (int n = 0; n < N; ++n)
        sum[0][n] = fma(splat(query[n * width + d]), load_widened(keys + d * size + t), sum[0][n]);
    for (int n = 0; n < N; ++n) store(scores + n * stride + t, sum[0][n] + sum[1][n]);
  }
}

// Page by page, all groups of a page together, for they lie together; the page after the next is fetched ahead.
template <class Stored>
static void row_scores(const SeenLayer& layer, const int* pages, const float* query, int64_t first, int64_t last,
                       float* scores, int64_t stride) {
  const int64_t heads = layer.q.shape[1], groups = layer.key_pages.shape[1], shared = heads / groups;
  const int64_t width = layer.q.shape[2], size = layer.key_pages.shape[3];
  const auto at = [&](int64_t page) { return pages[page] > 0 ? pages[page] : 0; };
  for (int64_t page = first; page < last; ++page)
    for (int64_t group = 0; group < groups; ++group) {
      const Stored* keys = layer.key_pages.at<const Stored>(at(page), group);
      const Stored* later = layer.key_pages.at<const Stored>(at(page + 2 < last ? page + 2 : last - 1), group);
      for (int64_t h = 0; h < shared; h += 4) {
        const int64_t head = group * shared + h;
        float* to = scores + head * stride + (page - first) * size;
        const float* q = query + head * width;
        switch (shared - h) {
          case 1: scores_of<1>(keys, later, size, width, q, to, stride); break;
          case 2: scores_of<2>(keys, later, size, width, q, to, stride); break;
          case 3: scores_of<3>(keys, later, size, width, q, to, stride); break;
          default: scores_of<4>(keys, later, size, width, q, to, stride);
        }
      }
    }
}

// Σ e^(s - m), and Σ e^(s - m) (s - m) where it is asked for; s becomes e^(s - m).
struct RowSums {
  double total = 0, weighted = 0;
};

template <int N>
REGARD_INLINE void add_exponentials(float* s, float m, bool entropy, RowSums& sums) {
  vf e[N], below[N];
#pragma GCC unroll 4
  for (int n = 0; n < N; ++n) e[n] = below[n] = max(load(s + n * W) - splat(m), splat(LOWEST));
  exponentials_of(e);
  vf total = e[0], weighted = e[0] * below[0];
#pragma GCC unroll 4
  for (int n = 0; n < N; ++n) store(s + n * W, e[n]);
#pragma GCC unroll 4
  for (int n = 1; n < N; ++n) total = total + e[n], weighted = fma(e[n], below[n], weighted);
  sums.total += sum_of(total);
  if (entropy) sums.weighted += sum_of(weighted);
}

// s[0 … count-1] of keys begin … end-1, those before and after left out -> weights there, 0 elsewhere; the entropy.
static double row_softmax(const SeenLayer& layer, int64_t head, float* s, int64_t begin, int64_t end, int64_t count,
                          bool entropy) {
  for (int64_t i = 0; i < begin; ++i) s[i] = minus_infinity();
  for (int64_t i = end; i < count; ++i) s[i] = minus_infinity();
  if (layer.softcap > 0)
    for (int64_t i = 0; i < count; i += W)
      store(s + i, select(less(splat(minus_infinity()), load(s + i)),
                          splat(layer.softcap) * hyperbolic_tangent(load(s + i) / splat(layer.softcap)), load(s + i)));
  vf most = splat(minus_infinity());
  for (int64_t i = 0; i < count; i += W) most = max(load(s + i), most);
  float m = max_of(most);
  if (layer.sink && layer.sink[head] > m) m = layer.sink[head];
  RowSums sums;
  int64_t i = 0;
  for (; i + 4 * W <= count; i += 4 * W) add_exponentials<4>(s + i, m, entropy, sums);
  for (; i < count; i += W) add_exponentials<1>(s + i, m, entropy, sums);
  double total = sums.total;
  if (layer.sink) total += exponential(max(splat(layer.sink[head] - m), splat(LOWEST)))[0];
  const vf inverse = splat(static_cast<float>(1 / total));
  for (i = 0; i < count; i += W) store(s + i, load(s + i) * inverse);
  for (i = 0; i < begin; ++i) s[i] = 0;
  for (i = end; i < count; ++i) s[i] = 0;
  return std::log(total) * (sums.total / total) - sums.weighted / total;  // -Σ a ln a, ln a = s - m - ln Σ
}

// The k largest, the largest first, of equals the earlier; what is missing counts 0.
static void largest(const float* a, int64_t count, int64_t k, int64_t first_key, float* values, int* keys) {
  int64_t held = 0;
  const auto insert = [&](int64_t i) {
    if (held == k && !(a[i] > values[k - 1])) return;
    int64_t at = held < k ? held++ : k - 1;
    for (; at > 0 && values[at - 1] < a[i]; --at) values[at] = values[at - 1], keys[at] = keys[at - 1];
    values[at] = a[i], keys[at] = static_cast<int>(first_key + i);
  };
  int64_t i = 0;
  for (; i < count && held < k; ++i) insert(i);
  for (; i + W <= count; i += W) {
    unsigned larger = bits(less(splat(values[k - 1]), load(a + i)));
    for (; larger; larger &= larger - 1) insert(i + __builtin_ctz(larger));
  }
  for (; i < count; ++i) insert(i);
  for (; held < k; ++held) values[held] = 0, keys[held] = 0;
}

static float mass_of(const float* a, int64_t first_key, int64_t count, int64_t begin, int64_t end) {
  double sum = 0;
  for (int64_t key = begin > first_key ? begin : first_key; key < end && key < first_key + count; ++key)
    sum += a[key - first_key];
  return static_cast<float>(sum);
}

// One output of a row: weights a on keys first_key … first_key+count-1.
static void reduce_row(const SeenStep& step, const SeenSequence& sequence, const SeenRow& row, int64_t layer,
                       int64_t output, int64_t outputs, const float* a, int64_t first_key, int64_t count,
                       double entropy) {
  const int64_t at = (row.result * step.layers + layer) * outputs + output;
  if (step.top) largest(a, count, step.top_k, first_key, step.top + at * step.top_k, step.top_keys + at * step.top_k);
  if (step.entropy) step.entropy[at] = static_cast<float>(entropy);
  if (step.sink) step.sink[at] = mass_of(a, first_key, count, 0, step.sinks);
  if (step.messages) {
    int64_t last = 0;
    const int64_t spans = static_cast<int64_t>(sequence.spans.size()) / 2;
    float* to = step.messages + at * step.spans;
    for (int64_t i = 0; i < spans; ++i) {
      to[i] = mass_of(a, first_key, count, sequence.spans[2 * i], sequence.spans[2 * i + 1]);
      last = sequence.spans[2 * i + 1] > last ? sequence.spans[2 * i + 1] : last;
    }
    to[spans] = mass_of(a, first_key, count, last, first_key + count);
  }
  if (sequence.received) {
    double* to = sequence.received + (layer * outputs + output) * sequence.received_keys + first_key;
    for (int64_t i = 0; i < count; ++i) to[i] += a[i];
  }
}

static void see_row(const SeenStep& step, const SeenLayer& layer, const SeenSequence& sequence, const SeenRow& row) {
  const FlushTiny flush;
  const int64_t size = layer.key_pages.shape[3], heads = layer.q.shape[1], width = layer.q.shape[2];
  const int64_t end = row.position + 1, begin = layer.window > 0 && end > layer.window ? end - layer.window : 0;
  const int64_t first = begin / size, last = (end + size - 1) / size, stride = (last - first) * size;
  Scratch& scratch = Scratch::mine();
  float* query = scratch.floats(Scratch::query, static_cast<size_t>(heads * width));
  float* a = scratch.floats(Scratch::scores, static_cast<size_t>((heads + 1) * stride));
  for (int64_t h = 0; h < heads; ++h)
    for (int64_t d = 0; d < width; ++d) query[h * width + d] = layer.q.at<const float>(row.row, h)[d] * layer.scale;
  switch (layer.key_pages.type) {
    case Type::bf16: row_scores<Bf16>(layer, sequence.pages, query, first, last, a, stride); break;
    case Type::f16: row_scores<F16>(layer, sequence.pages, query, first, last, a, stride); break;
    default: row_scores<float>(layer, sequence.pages, query, first, last, a, stride);
  }
  const int64_t key = first * size, count = end - key;
  const int64_t chosen = step.heads.empty() ? heads : static_cast<int64_t>(step.heads.size());
  double entropies = 0;
  for (int64_t i = 0; i < chosen; ++i) {
    const int64_t head = step.heads.empty() ? i : step.heads[static_cast<size_t>(i)];
    const double entropy =
        row_softmax(layer, head, a + head * stride, begin - key, count, stride, step.entropy != nullptr);
    entropies += entropy;
    if (!step.mean) reduce_row(step, sequence, row, layer.index, i, chosen, a + head * stride, key, count, entropy);
  }
  if (!step.mean) return;
  float* mean = a + heads * stride;
  const vf share = splat(1.f / static_cast<float>(heads));
  for (int64_t i = 0; i < stride; i += W) {
    vf sum = zero();
    for (int64_t h = 0; h < heads; ++h) sum = sum + load(a + h * stride + i);
    store(mean + i, sum * share);
  }
  reduce_row(step, sequence, row, layer.index, 0, 1, mean, key, count, entropies / static_cast<double>(heads));
}

}  // namespace regard::REGARD_ISA
