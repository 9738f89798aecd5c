// Statistics that need finished weights a_ij: mass per key, distance histogram, pooled map, strongest links.
//
// They are read off the block's kept e (or e computed once more, where a row sees more keys than are kept) as
// a = e · f with f = e^(m_chunk - m) / L per row. Keys go by in segments of at most 32 that never cross a map cell;
// a segment's sum and maximum per row serve the map and, where all its distances share a bin, the histogram.
#pragma once
#include "rowstats.h"

namespace regard::REGARD_ISA {

constexpr int SEGMENT = 32;
constexpr int AHEAD = 12;  // keys fetched ahead: the kept e come from a far cache, and pages end every few keys

struct Links {  // the strongest links of each row so far, strongest first
  int k = 0;
  float* weight = nullptr;  // [BLOCK_ROWS][k]
  int* key = nullptr;
  int count[BLOCK_ROWS];
  alignas(64) float bar[BLOCK_ROWS];  // only weights above it can enter
};

REGARD_STEP void insert(Links& links, int row, float weight, int key) {
  float* w = links.weight + row * links.k;
  int* at = links.key + row * links.k;
  int place = links.count[row];
  if (place == links.k) {
    if (!(weight > w[--place])) return;
  } else {
    ++links.count[row];
  }
  for (; place > 0 && w[place - 1] < weight; --place) {
    w[place] = w[place - 1];
    at[place] = at[place - 1];
  }
  w[place] = weight;
  at[place] = key;
  if (links.count[row] == links.k && w[links.k - 1] > links.bar[row]) links.bar[row] = w[links.k - 1];
}

// The k largest segment maxima of scores per row: the last of them is a lower bound for the k-th largest score, so
// that few weights have to be looked at one by one.
struct Bounds {
  int k = 0;
  float* best = nullptr;  // [k][BLOCK_ROWS], descending
};

REGARD_STEP void raise_bounds(Bounds& bounds, const float* best, int pieces, int vectors) {
  for (int v = 0; v < vectors; ++v) {
    for (int piece = 0; piece < pieces; ++piece) {
      vf x = load(best + piece * vectors * W + v * W);
      if (bits(less(load(bounds.best + (bounds.k - 1) * BLOCK_ROWS + v * W), x)) == 0) continue;
      for (int i = 0; i < bounds.k; ++i) {
        float* at = bounds.best + i * BLOCK_ROWS + v * W;
        const vf other = load(at);
        store(at, max(other, x));
        x = min(other, x);
      }
    }
  }
}

struct ColumnSums {  // what one sweep adds to, for one head of the block
  Columns total;
  const Statistic* histogram = nullptr;
  const Statistic* pool = nullptr;
  Links* links = nullptr;
  int segment = SEGMENT;
  alignas(64) float factor[BLOCK_ROWS];  // f of the current chunk; 0 for rows that do not count
  float* row_max = nullptr;              // running maximum of a·c per row, where a key scale makes it unknown
  float* bins = nullptr;                 // [bins][W] float32 of this block
  int position_low[BLOCK_ROWS / W], position_high[BLOCK_ROWS / W];  // of the rows of each vector
};

struct SegmentSums {
  alignas(64) float sum[BLOCK_ROWS];
  alignas(64) float max[BLOCK_ROWS];
};

REGARD_INLINE int bin_of(int64_t distance, int bins) {
  const int bin = distance == 0 ? 0 : 64 - __builtin_clzll(static_cast<unsigned long long>(distance));
  return bin < bins ? bin : bins - 1;
}

// Offers the weights of one key that lie above their row's bar.
REGARD_STEP void offer(Links& links, const float* weight, int first_row, int num_rows, int key) {
  for (int row = 0; row < num_rows; row += W) {
    unsigned above = bits(less(load(links.bar + first_row + row), load(weight + row)));
    for (; above; above &= above - 1) {
      const int lane = row + __builtin_ctz(above);
      insert(links, first_row + lane, weight[lane], key);
    }
  }
}

// One segment for N vectors of rows, from row `first` on: column[c][lane] (+)= Σ over vectors of a, and the sum and
// maximum of each row.
template <int N, bool WITH_LINKS>
REGARD_STEP void sweep_vectors(ColumnSums& to, const float* e, int count, int lanes, const int* slot, int first,
                               float* column, SegmentSums& found) {
  vf factor[N], sum[N], largest[N], bar[N];
  for (int v = 0; v < N; ++v) {
    factor[v] = load(to.factor + first + v * W);
    sum[v] = largest[v] = zero();
    bar[v] = WITH_LINKS ? load(to.links->bar + first + v * W) : zero();
  }
  const bool starts = first == 0;
  e += first;
  for (int c = 0; c < count; ++c, e += lanes) {
    vf across = starts ? zero() : load(column + c * W);
    vf weight[N];
#pragma GCC unroll 4
    for (int v = 0; v < N; ++v) {
      __builtin_prefetch(e + AHEAD * lanes + v * W);
      weight[v] = load(e + v * W) * factor[v];
      across = across + weight[v];
      sum[v] = sum[v] + weight[v];
      largest[v] = max(largest[v], weight[v]);
    }
    store(column + c * W, across);
    if (WITH_LINKS) {
      vm any = nowhere();
#pragma GCC unroll 4
      for (int v = 0; v < N; ++v) any = either(any, less(bar[v], weight[v]));
      if (__builtin_expect(bits(any) != 0, 0)) {
        alignas(64) float kept[N * W];
        for (int v = 0; v < N; ++v) store(kept + v * W, weight[v]);
        offer(*to.links, kept, first, N * W, slot[c]);
        for (int v = 0; v < N; ++v) bar[v] = load(to.links->bar + first + v * W);
      }
    }
  }
  for (int v = 0; v < N; ++v) {
    store(found.sum + first + v * W, sum[v]);
    store(found.max + first + v * W, largest[v]);
  }
}

REGARD_INLINE void sweep_segment(ColumnSums& to, const float* e, int begin, int end, int vectors, const Keys& keys,
                                 float* column, SegmentSums& found) {
  const int lanes = vectors * W;
  in_groups(vectors, [&](auto n, int first) {
    constexpr int N = decltype(n)::value;
    auto step = to.links ? sweep_vectors<N, true> : sweep_vectors<N, false>;
    step(to, e + begin * lanes, end - begin, lanes, keys.slot + begin, first * W, column + begin * W, found);
  });
}

// Adds the weights of a segment to the bins of their distances, for the rows of one vector. key_low, key_high: the
// least and greatest key position.
REGARD_STEP void add_to_bins(ColumnSums& to, const Rows& rows, const float* e, int begin, int end, int v,
                             const Keys& keys, int key_low, int key_high, const SegmentSums& found) {
  const int bins = static_cast<int>(to.histogram->size);
  const int low = to.position_low[v], high = to.position_high[v];
  const int64_t ahead = int64_t{low} - key_high, behind = int64_t{key_low} - high;  // how far apart, if disjoint
  const int64_t nearest = ahead > 0 ? ahead : behind > 0 ? behind : 0;
  const int64_t back = int64_t{high} - key_low, forth = int64_t{key_high} - low;
  const int first_bin = bin_of(nearest, bins), last_bin = bin_of(back > forth ? back : forth, bins);
  if (first_bin == last_bin) {
    float* at = to.bins + first_bin * W;
    store(at, load(at) + load(found.sum + v * W));
    return;
  }
  const vi own = load(rows.position + v * W);
  const vf factor = load(to.factor + v * W);
  for (int bin = first_bin; bin <= last_bin; ++bin) {
    const int64_t from = bin == 0 ? 0 : int64_t{1} << (bin - 1);
    const vf lowest = splat(static_cast<float>(from));
    const vf beyond = splat(bin == 0 ? 1.f : bin == bins - 1 ? 4e9f : static_cast<float>(from * 2));
    vf sum = zero();
    for (int c = begin; c < end; ++c) {
      const vf distance = magnitude(to_float(splat(keys.position[c]) - own));
      const vf weight = load(e + c * rows.lanes + v * W) * factor;
      const vm inside = both(less(distance, beyond), less(lowest - splat(0.5f), distance));
      sum = add_where(inside, sum, weight);
    }
    float* at = to.bins + bin * W;
    store(at, load(at) + sum);
  }
}

// Adds a segment to the map cells of its rows, for the rows of one vector.
REGARD_STEP void add_to_map(ColumnSums& to, const Rows& rows, int key, int v, const SegmentSums& found) {
  const Statistic& pool = *to.pool;
  const int64_t width = (rows.call.keys() + (int64_t{1} << pool.key_shift) - 1) >> pool.key_shift;
  const int64_t first_cell = pool.query_offset >> pool.query_shift, key_cell = key >> pool.key_shift;
  const int last = v * W + W < rows.block.rows ? v * W + W : rows.block.rows;
  auto cell = [&](int row) {
    return (((pool.query_offset + rows.block.query[row]) >> pool.query_shift) - first_cell) * width + key_cell;
  };
  if (rows.block.one_head && cell(v * W) == cell(last - 1)) {  // its rows ascend
    to.total.pool_sum[cell(v * W)] += sum_of(load(found.sum + v * W));
    float& most = to.total.pool_max[cell(v * W)];
    const float largest = max_of(load(found.max + v * W));
    most = largest > most ? largest : most;
    return;
  }
  for (int row = v * W; row < last; ++row) {
    to.total.pool_sum[cell(row)] += found.sum[row];
    float& most = to.total.pool_max[cell(row)];
    most = found.max[row] > most ? found.max[row] : most;
  }
}

// One chunk, e in scores' layout.
REGARD_STEP void sweep_chunk(ColumnSums& to, const Rows& rows, const Chunk& chunk, const Keys& keys, const float* e) {
  float* column = rows.scratch.floats(Scratch::segment, (CHUNK + W) * W);
  SegmentSums found;
  for (int begin = 0; begin < keys.count;) {
    int end = begin + 1;  // to the next anchor, or the end of a run
    while (end < keys.count && keys.slot[end] == keys.slot[end - 1] + 1 && keys.slot[end] % to.segment != 0) ++end;
    sweep_segment(to, e, begin, end, rows.vectors, keys, column, found);
    int key_low = 0, key_high = 0;
    if (to.histogram) lowest_and_highest(keys.position + begin, end - begin, key_low, key_high);
    for (int v = 0; v < rows.vectors; ++v) {
      if (to.row_max) store(to.row_max + v * W, max(load(to.row_max + v * W), load(found.max + v * W)));
      if (to.histogram) add_to_bins(to, rows, e, begin, end, v, keys, key_low, key_high, found);
      if (to.pool) add_to_map(to, rows, keys.slot[begin], v, found);
    }
    begin = end;
  }
  if (to.total.mass == nullptr) return;
  alignas(64) float sums[CHUNK + W];
  for (int c = keys.count * W; c < (keys.count + W) * W; ++c) column[c] = 0;
  for (int c = 0; c < keys.count; c += W) store(sums + c, lane_sums(column + c * W));
  for (int r = 0; r < chunk.num_runs; ++r) {
    const Run& run = rows.walk.runs[chunk.first_run + r];
    double* mass = to.total.mass + run.key;
    for (int i = 0; i < run.length; ++i) mass[i] += sums[run.place + i];
  }
}

}  // namespace regard::REGARD_ISA
