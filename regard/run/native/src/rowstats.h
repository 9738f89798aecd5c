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

static void sum_feature(const Rows& rows, const Statistic& wanted, const Keys& keys, const float* e, float* parts) {
  alignas(64) float feature[CHUNK];
  bool any = false;
  for (int c = 0; c < keys.count; ++c) {
    feature[c] = *wanted.first.at<const float>(rows.block.batch, keys.slot[c]);
    any = any || feature[c] != 0;
  }
  if (!any) {
    for (int row = 0; row < rows.lanes; ++row) parts[row] = 0;
    return;
  }
  sum_over_keys(e, keys.count, rows.vectors, parts,
                [&](vf sum, vf x, int c, int) { return fma(x, splat(feature[c]), sum); });
}

static void sum_matches(const Rows& rows, const Statistic& wanted, const Keys& keys, const float* e, float* parts) {
  alignas(64) int own[BLOCK_ROWS];
  alignas(64) int label[CHUNK];
  int low = INT32_MAX, high = INT32_MIN, key_low = INT32_MAX, key_high = INT32_MIN;
  for (int row = 0; row < rows.lanes; ++row) {
    own[row] = *wanted.first.at<const int>(rows.block.batch, rows.block.query[row < rows.block.rows ? row : 0]);
    low = own[row] < low ? own[row] : low;
    high = own[row] > high ? own[row] : high;
  }
  for (int c = 0; c < keys.count; ++c) {
    label[c] = *wanted.second.at<const int>(rows.block.batch, keys.slot[c]);
    key_low = label[c] < key_low ? label[c] : key_low;
    key_high = label[c] > key_high ? label[c] : key_high;
  }
  if (key_high < low || high < key_low) {  // no label in common: labels that are positions rarely meet
    for (int row = 0; row < rows.lanes; ++row) parts[row] = 0;
    return;
  }
  sum_over_keys(e, keys.count, rows.vectors, parts, [&](vf sum, vf x, int c, int v) {
    return add_where(equal(load(own + v * W), splat(label[c])), sum, x);
  });
}

static void sum_distances(const Rows& rows, const Keys& keys, const float* e, float* parts) {
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

// e of one chunk -> the parts of every extra sum.
static void sum_rows(const Rows& rows, RowState& state, const Keys& keys, const float* e) {
  const Call& call = rows.call;
  float* parts = state.parts + first_extra * BLOCK_ROWS;
  for (int i = 0; i < call.num_statistics; ++i) {
    const Statistic& wanted = call.statistics[i];
    switch (wanted.kind) {
      case Statistic::sum: sum_feature(rows, wanted, keys, e, parts); break;
      case Statistic::match: sum_matches(rows, wanted, keys, e, parts); break;
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
