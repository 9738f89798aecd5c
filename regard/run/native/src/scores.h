// The scores of one chunk of keys for one block of rows, laid out [key][row]: rows are lanes, so everything that
// softmax and statistics do per row is a plain vector operation.
#pragma once
#include "keys.h"
#include "tile.h"

namespace regard::REGARD_ISA {

REGARD_INLINE float minus_infinity() { return -__builtin_inff(); }

// One block of rows, ready to be walked.
struct Rows {
  Rows(const Call& c, Scratch& s) : call(c), scratch(s) {}

  const Call& call;
  Scratch& scratch;
  Walk walk;
  Block block;
  int lanes = 0, vectors = 0;           // rows rounded up to whole vectors
  float* query = nullptr;               // scaled queries, [Dk][lanes]
  bool has_positions = false;
  int64_t base = 0;                     // positions are kept relative to it, as int32
  alignas(64) int position[BLOCK_ROWS];
  alignas(64) int first_interval[BLOCK_ROWS];  // per row, the first interval that does not end before the chunk
  int shared_intervals = 0;             // intervals that every row sees, [start, stop) pairs
  int* shared = nullptr;
};

struct Keys {  // what a chunk's compact keys are, as plain arrays
  int count;
  alignas(64) int slot[CHUNK];
  alignas(64) int position[CHUNK];
};

static bool reads_positions(const Call& call) {
  for (int i = 0; i < call.num_terms; ++i)
    if (call.terms[i].kind == Term::slope || call.terms[i].kind == Term::distance) return true;
  for (int i = 0; i < call.num_statistics; ++i)
    if (call.statistics[i].kind == Statistic::distance || call.statistics[i].kind == Statistic::histogram) return true;
  return false;
}

// columns[width][lanes] from the rows' vectors: a transposition, so that rows become lanes.
static void pack_rows(const Rows& rows, const View& view, int64_t width, bool scaled, float* columns) {
  const Call& call = rows.call;
  float* room = rows.scratch.floats(Scratch::rows_o, width);
  if (rows.block.rows < rows.lanes) std::memset(columns, 0, sizeof(float) * static_cast<size_t>(width * rows.lanes));
  for (int row = 0; row < rows.block.rows; ++row) {
    const int head = rows.block.head[row];
    const Operand from = float_rows(view, rows.block.batch, head, rows.block.query[row], 1, width, room);
    const float scale = !scaled ? 1.f : call.head_scale ? *call.head_scale.at<const float>(head) : call.scale;
    for (int64_t d = 0; d < width; ++d) columns[d * rows.lanes + row] = from.data[d] * scale;
  }
}

// What the r-th intervals of all rows have in common, for every r: chunks inside need no mask.
static void share_intervals(Rows& rows) {
  const Call& call = rows.call;
  const Block& block = rows.block;
  const int intervals = static_cast<int>(call.start.shape[3]);
  rows.shared = rows.scratch.ints(Scratch::shared, 2 * static_cast<size_t>(intervals));
  rows.shared_intervals = intervals;
  for (int r = 0; r < intervals; ++r) {
    int begin = 0, end = INT32_MAX;
    for (int row = 0; row < block.rows; ++row) {
      const int64_t head = block.head[row], query = block.query[row];
      const int start = *call.start.at<const int>(block.batch, head, query, r);
      const int stop = *call.stop.at<const int>(block.batch, head, query, r);
      begin = start > begin ? start : begin;
      end = stop < end ? stop : end;
    }
    rows.shared[2 * r] = begin;
    rows.shared[2 * r + 1] = end;
  }
}

static bool seen_by_all(const Rows& rows, const Chunk& chunk) {
  for (int r = 0; r < rows.shared_intervals; ++r)
    if (rows.shared[2 * r] <= chunk.begin && chunk.end <= rows.shared[2 * r + 1]) return true;
  return false;
}

REGARD_STEP void start_rows(Rows& rows) {
  const Call& call = rows.call;
  rows.vectors = (rows.block.rows + W - 1) / W;
  rows.lanes = rows.vectors * W;
  rows.walk.plan(call, rows.block);
  share_intervals(rows);
  rows.query = rows.scratch.floats(Scratch::query, call.key_width() * rows.lanes);
  pack_rows(rows, call.q, call.key_width(), true, rows.query);
  for (int row = 0; row < BLOCK_ROWS; ++row) rows.first_interval[row] = 0;
  rows.has_positions = reads_positions(call);
  if (rows.has_positions) {
    rows.base = *call.query_positions.at<const int64_t>(rows.block.batch, rows.block.query[0]);
    for (int row = 0; row < rows.lanes; ++row) {
      const int64_t query = rows.block.query[row < rows.block.rows ? row : rows.block.rows - 1];
      rows.position[row] =
          static_cast<int>(*call.query_positions.at<const int64_t>(rows.block.batch, query) - rows.base);
    }
  }
}

// to[compact key] = from[key], for a chunk's runs.
template <class T>
REGARD_INLINE void collect(const Rows& rows, const Chunk& chunk, const T* from, T* to) {
  for (int r = 0; r < chunk.num_runs; ++r) {
    const Run& run = rows.walk.runs[chunk.first_run + r];
    std::memcpy(to + run.place, from + run.key, sizeof(T) * static_cast<size_t>(run.length));
  }
}

REGARD_STEP void list_keys(const Rows& rows, const Chunk& chunk, Keys& keys) {
  keys.count = chunk.count;
  for (int r = 0; r < chunk.num_runs; ++r) {
    const Run& run = rows.walk.runs[chunk.first_run + r];
    for (int i = 0; i < run.length; ++i) keys.slot[run.place + i] = run.key + i;
  }
  if (!rows.has_positions) return;
  int64_t position[CHUNK];
  collect(rows, chunk, rows.call.key_positions.at<const int64_t>(rows.block.batch), position);
  for (int i = 0; i < keys.count; ++i) keys.position[i] = static_cast<int>(position[i] - rows.base);
}

// s += bias, one number per key for all lanes.
static void add_per_key(const Rows& rows, const float* bias, int64_t stride, const Keys& keys, float* scores) {
  for (int c = 0; c < keys.count; ++c) {
    const vf b = splat(bias[keys.slot[c] * stride]);
    float* at = scores + c * rows.lanes;
    for (int v = 0; v < rows.vectors; ++v) store(at + v * W, load(at + v * W) + b);
  }
}

// s += bias[b, h, i, j].
static void add_per_pair(const Rows& rows, const View& bias, const Keys& keys, float* scores) {
  for (int row = 0; row < rows.block.rows; ++row) {
    const float* from = bias.at<const float>(rows.block.batch, rows.block.head[row], rows.block.query[row]);
    const int64_t stride = bias.stride[3];
    for (int c = 0; c < keys.count; ++c) scores[c * rows.lanes + row] += from[keys.slot[c] * stride];
  }
}

// f(key position - row position) added to each score; f takes and gives vectors, and the vector's number.
template <class F>
REGARD_INLINE void add_by_distance(const Rows& rows, const Keys& keys, float* scores, F&& f) {
  for (int v = 0; v < rows.vectors; ++v) {
    const vi own = load(rows.position + v * W);
    for (int c = 0; c < keys.count; ++c) {
      float* at = scores + c * rows.lanes + v * W;
      store(at, f(load(at), splat(keys.position[c]) - own, v));
    }
  }
}

REGARD_STEP void apply(const Rows& rows, const Term& term, const Keys& keys, float* scores) {
  const Block& block = rows.block;
  const View& tensor = term.tensor;
  alignas(64) float per_lane[BLOCK_ROWS];
  alignas(64) int per_lane_start[BLOCK_ROWS];
  switch (term.kind) {
    case Term::key_bias:
    case Term::table:
      if (tensor.stride[2] == 0 && (block.one_head || tensor.stride[1] == 0)) {
        add_per_key(rows, tensor.at<const float>(block.batch, block.head[0]), tensor.stride[3], keys, scores);
      } else {
        add_per_pair(rows, tensor, keys, scores);
      }
      break;
    case Term::slope:
      for (int row = 0; row < rows.lanes; ++row)
        per_lane[row] = *tensor.at<const float>(block.head[row < block.rows ? row : 0]);
      add_by_distance(rows, keys, scores,
                      [&](vf s, vi distance, int v) { return fma(load(per_lane + v * W), to_float(distance), s); });
      break;
    case Term::distance: {
      const int reach = static_cast<int>(tensor.shape[1] / 2);
      const vf low = splat(static_cast<float>(-reach)), high = splat(static_cast<float>(reach));
      for (int row = 0; row < rows.lanes; ++row)
        per_lane_start[row] = static_cast<int>(block.head[row < block.rows ? row : 0] * tensor.stride[0]);
      add_by_distance(rows, keys, scores, [&](vf s, vi distance, int v) {
        const vf clipped = min(max(to_float(distance), low), high);
        const vi index = __builtin_convertvector(clipped, vi) + splat(reach) + load(per_lane_start + v * W);
        return s + gather(tensor.at<const float>(0), index);
      });
      break;
    }
    case Term::softcap: {
      const vf cap = splat(term.number);
      for (int i = 0; i < keys.count * rows.lanes; i += W) {
        store(scores + i, cap * hyperbolic_tangent(load(scores + i) / cap));
      }
      break;
    }
  }
}

// -inf where a row does not see a key.
REGARD_STEP void hide(Rows& rows, const Chunk& chunk, const Keys& keys, float* scores) {
  if (seen_by_all(rows, chunk)) return;
  const Call& call = rows.call;
  const Block& block = rows.block;
  const int intervals = static_cast<int>(call.start.shape[3]);
  const int64_t step = call.start.stride[3], stop_step = call.stop.stride[3];
  int* low = rows.scratch.ints(Scratch::intervals, 2 * static_cast<size_t>(intervals) * rows.lanes);
  int* high = low + intervals * rows.lanes;
  int passes = 0;
  bool full = true;
  for (int row = 0; row < rows.lanes; ++row) {
    int pass = 0, visible = 0;
    if (row < block.rows) {
      const int* start = call.start.at<const int>(block.batch, block.head[row], block.query[row]);
      const int* stop = call.stop.at<const int>(block.batch, block.head[row], block.query[row]);
      int& first = rows.first_interval[row];
      while (first < intervals &&
             (stop[first * stop_step] <= chunk.begin || stop[first * stop_step] <= start[first * step]))
        ++first;
      for (int r = first; r < intervals; ++r) {
        const int begin = start[r * step] > chunk.begin ? start[r * step] : chunk.begin;
        const int end = stop[r * stop_step] < chunk.end ? stop[r * stop_step] : chunk.end;
        if (end <= begin) continue;
        visible += end - begin;
        for (; passes <= pass; ++passes)
          for (int i = 0; i < rows.lanes; ++i) low[passes * rows.lanes + i] = high[passes * rows.lanes + i] = 0;
        low[pass * rows.lanes + row] = begin;
        high[pass * rows.lanes + row] = end;
        ++pass;
      }
      full = full && visible == chunk.count;
    }
  }
  if (full) return;
  for (int v = 0; v < rows.vectors; ++v) {
    for (int c = 0; c < keys.count; ++c) {
      const vi key = splat(keys.slot[c]);
      vm seen = nowhere();
      for (int p = 0; p < passes; ++p) {
        const vi begin = load(low + p * rows.lanes + v * W), end = load(high + p * rows.lanes + v * W);
        seen = either(seen, both(less(begin - splat(1), key), less(key, end)));
      }
      float* at = scores + c * rows.lanes + v * W;
      store(at, select(seen, load(at), splat(minus_infinity())));
    }
  }
}

// slope[i] *= d softcap(s) / ds = 1 - (softcap(s) / cap)², from the capped scores.
static void multiply_slope(const Term& term, const float* scores, int count, float* slope) {
  const vf cap = splat(term.number);
  for (int i = 0; i < count; i += W) {
    const vf t = load(scores + i) / cap;
    store(slope + i, load(slope + i) * (splat(1.f) - t * t));
  }
}

// scores[key][row] = every term in order of scale · q·k, and -inf where the row does not see the key. slope, if given:
// the derivative of each score by its dot product.
REGARD_STEP void score_chunk(Rows& rows, const Chunk& chunk, const Keys& keys, float* scores, float* slope = nullptr) {
  const Call& call = rows.call;
  const int64_t width = call.key_width();
  for (int r = 0; r < chunk.num_runs; ++r) {
    const Run& run = rows.walk.runs[chunk.first_run + r];
    const Operand k = keys_of(call, rows.scratch, rows.block, run);
    multiply<false>(run.length, rows.vectors, k, rows.query, rows.lanes, scores + int64_t{run.place} * rows.lanes,
                    rows.lanes, width);
  }
  const int cells = keys.count * rows.lanes;
  if (slope)
    for (int i = 0; i < cells; ++i) slope[i] = 1;
  for (int i = 0; i < call.num_terms; ++i) {
    apply(rows, call.terms[i], keys, scores);
    if (slope && call.terms[i].kind == Term::softcap) multiply_slope(call.terms[i], scores, cells, slope);
  }
  hide(rows, chunk, keys, scores);
}

}  // namespace regard::REGARD_ISA
