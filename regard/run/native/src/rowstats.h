// Statistics that are sums over one row, Σ_j e_j f(i, j): folded while the row is first walked, then divided by L.
#pragma once
#include "rowstate.h"

namespace regard::REGARD_ISA {

// Adds f(e, key, group vector) over the chunk into parts.
template <class F>
REGARD_INLINE void sum_over_keys(const float* e, int count, int vectors, float* parts, F&& f) {
  const int lanes = vectors * W;
  in_groups(vectors, [&](auto n, int first) {
    constexpr int N = decltype(n)::value;
    vf sum[N];
    for (int v = 0; v < N; ++v) sum[v] = zero();
    for (int c = 0; c < count; ++c)
#pragma GCC unroll 4
      for (int v = 0; v < N; ++v) sum[v] = f(sum[v], load(e + c * lanes + (first + v) * W), c, first + v);
    for (int v = 0; v < N; ++v) store(parts + (first + v) * W, sum[v]);
  });
}

struct Labels {  // the rows' labels of one match statistic
  alignas(64) int own[BLOCK_ROWS];
  int low, high;
};

static void lowest_and_highest(const int* x, int count, int& low, int& high) {
  low = high = x[0];
  for (int i = 1; i < count; ++i) {
    low = x[i] < low ? x[i] : low;
    high = x[i] > high ? x[i] : high;
  }
}

static void start_labels(const Rows& rows, const Statistic& wanted, Labels& labels) {
  for (int row = 0; row < rows.lanes; ++row)
    labels.own[row] = *wanted.first.at<const int>(rows.block.batch, rows.block.query[row < rows.block.rows ? row : 0]);
  lowest_and_highest(labels.own, rows.lanes, labels.low, labels.high);
}

static void set_zero(const Rows& rows, float* parts) {
  for (int row = 0; row < rows.lanes; ++row) parts[row] = 0;
}

REGARD_STEP void sum_feature(const Rows& rows, const Chunk& chunk, const Statistic& wanted, const float* e,
                             const float* plain_sum, float* parts) {
  alignas(64) float feature[CHUNK];
  collect(rows, chunk, wanted.first.at<const float>(rows.block.batch), feature);
  int not_zero = 0, not_one = 0;
  for (int c = 0; c < chunk.count; ++c) {
    not_zero |= feature[c] != 0;
    not_one |= feature[c] != 1;
  }
  if (not_zero == 0) return set_zero(rows, parts);
  if (not_one == 0 && plain_sum != nullptr) {
    std::memcpy(parts, plain_sum, sizeof(float) * rows.lanes);
    return;
  }
  sum_over_keys(e, chunk.count, rows.vectors, parts,
                [&](vf sum, vf x, int c, int) { return fma(x, splat(feature[c]), sum); });
}

REGARD_STEP void sum_matches(const Rows& rows, const Chunk& chunk, const Statistic& wanted, const Labels& labels,
                             const float* e, float* parts) {
  alignas(64) int label[CHUNK];
  collect(rows, chunk, wanted.second.at<const int>(rows.block.batch), label);
  int low, high;
  lowest_and_highest(label, chunk.count, low, high);
  if (high < labels.low || labels.high < low) return set_zero(rows, parts);  // labels that are positions rarely meet
  sum_over_keys(e, chunk.count, rows.vectors, parts, [&](vf sum, vf x, int c, int v) {
    return add_where(equal(load(labels.own + v * W), splat(label[c])), sum, x);
  });
}

REGARD_STEP void sum_distances(const Rows& rows, const Keys& keys, const float* e, float* parts) {
  sum_over_keys(e, keys.count, rows.vectors, parts, [&](vf sum, vf x, int c, int v) {
    return fma(magnitude(to_float(splat(keys.position[c]) - load(rows.position + v * W))), x, sum);
  });
}

static int num_row_sums(const Call& call) {
  int count = first_extra;
  for (int i = 0; i < call.num_statistics; ++i) {
    const auto kind = call.statistics[i].kind;
    count += kind == Statistic::sum || kind == Statistic::match || kind == Statistic::distance;
  }
  return count;
}

static Labels* start_matches(const Rows& rows) {
  int count = 0;
  for (int i = 0; i < rows.call.num_statistics; ++i) count += rows.call.statistics[i].kind == Statistic::match;
  if (count == 0) return nullptr;
  Labels* labels = reinterpret_cast<Labels*>(rows.scratch.floats(Scratch::labels, count * sizeof(Labels) / 4));
  for (int i = 0, at = 0; i < rows.call.num_statistics; ++i)
    if (rows.call.statistics[i].kind == Statistic::match) start_labels(rows, rows.call.statistics[i], labels[at++]);
  return labels;
}

// e of one chunk -> the parts of every extra sum.
static void sum_rows(const Rows& rows, const Chunk& chunk, RowState& state, const Keys& keys, const Labels* labels,
                     const float* e) {
  const Call& call = rows.call;
  const float* plain_sum = call.key_scale ? nullptr : state.parts + weight_sum * BLOCK_ROWS;
  float* parts = state.parts + first_extra * BLOCK_ROWS;
  for (int i = 0; i < call.num_statistics; ++i) {
    const Statistic& wanted = call.statistics[i];
    switch (wanted.kind) {
      case Statistic::sum: sum_feature(rows, chunk, wanted, e, plain_sum, parts); break;
      case Statistic::match: sum_matches(rows, chunk, wanted, *labels++, e, parts); break;
      case Statistic::distance: sum_distances(rows, keys, e, parts); break;
      default: continue;
    }
    parts += BLOCK_ROWS;
  }
}

// e times the key scale c_j, for statistics only.
static const float* scaled_by_key(const Rows& rows, const Keys& keys, const float* e) {
  const Call& call = rows.call;
  if (!call.key_scale) return e;
  float* scaled = rows.scratch.floats(Scratch::scaled, CHUNK * BLOCK_ROWS);
  for (int row = 0; row < rows.lanes; ++row) {
    const int head = rows.block.head[row < rows.block.rows ? row : 0];
    const float* factor = call.key_scale.at<const float>(rows.block.batch, head);
    const int64_t stride = call.key_scale.stride[2];
    for (int c = 0; c < keys.count; ++c)
      scaled[c * rows.lanes + row] = e[c * rows.lanes + row] * factor[keys.slot[c] * stride];
  }
  return scaled;
}

}  // namespace regard::REGARD_ISA
