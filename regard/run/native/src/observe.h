// Statistics of one query row, without an output: what watching a token by token generation asks for.
//
// A block of rows has rows as lanes; with one row, lanes are keys. The query heads that share a key-value head go
// together, so keys are read once:
//
//   s[head][key] = scores, every term in order
//   m = max s,  e = e^(s - m),  sums over e in one go: l, u and every x
//   a = e / L, for what needs finished weights
//
// Sums over up to LAP keys are float32, beyond that float64. The formulas are those of rowstate.h, with one chunk.
#pragma once
#include "attend.h"

namespace regard::REGARD_ISA {

constexpr int LAP = 16 * SEGMENT;  // keys

// The visible keys of one row side by side, padded with zeros to whole vectors.
struct Line {
  int count = 0, padded = 0;
  int* slot = nullptr;
  int* distance = nullptr;  // key position - query position
};

// s[n] = query[n] · key for N heads, `count` keys of `width` features that lie side by side.
template <int N>
REGARD_STEP void dot_products(const float* query, const Operand& keys, int64_t count, int64_t width,
                              float* const* scores) {
  const int64_t whole = width / W * W;
  alignas(64) float part[N][W * W];
  for (int64_t first = 0; first < count; first += W) {
    const int64_t here = count - first < W ? count - first : W;
    for (int64_t j = 0; j < here; ++j) {
      const float* key = keys.data + (first + j) * keys.row;
      vf sum[N];
      for (int n = 0; n < N; ++n) sum[n] = zero();
      for (int64_t d = 0; d < whole; d += W) {
        const vf k = load(key + d);
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) sum[n] = fma(load(query + n * width + d), k, sum[n]);
      }
      for (int64_t d = whole; d < width; ++d)
        for (int n = 0; n < N; ++n) sum[n][0] += query[n * width + d] * key[d];
      for (int n = 0; n < N; ++n) store(&part[n][j * W], sum[n]);
    }
    for (int n = 0; n < N; ++n) {
      for (int64_t j = here; j < W; ++j) store(&part[n][j * W], zero());
      const vf sums = lane_sums(part[n]);
      if (here == W) {
        store(scores[n] + first, sums);
      } else {
        for (int64_t j = 0; j < here; ++j) scores[n][first + j] = sums[j];
      }
    }
  }
}

// The same for keys of which a feature of all lies side by side, as pages hold them.
static void dot_products_by_feature(const float* query, int heads, const Operand& keys, int64_t count, int64_t width,
                                    float* const* scores) {
  for (int n = 0; n < heads; ++n) {
    int64_t j = 0;
    for (; j + W <= count; j += W) {
      vf sum = zero();
      for (int64_t d = 0; d < width; ++d)
        sum = fma(splat(query[n * width + d]), load(keys.data + d * keys.depth + j), sum);
      store(scores[n] + j, sum);
    }
    for (; j < count; ++j) {
      float sum = 0;
      for (int64_t d = 0; d < width; ++d) sum += query[n * width + d] * keys.data[d * keys.depth + j];
      scores[n][j] = sum;
    }
  }
}

REGARD_STEP void score_line(Rows& rows, const float* query, float* const* scores) {
  const int64_t width = rows.call.key_width();
  const int heads = rows.block.rows;
  for (int i = 0; i < rows.walk.num_chunks; ++i) {
    const Chunk& chunk = rows.walk.chunks[i];
    for (int r = 0; r < chunk.num_runs; ++r) {
      const Run& run = rows.walk.runs[chunk.first_run + r];
      const Operand keys = keys_of(rows.call, rows.scratch, rows.block, run);
      for (int h = 0; h < heads; h += 4) {
        const int n = heads - h < 4 ? heads - h : 4;
        float* to[4];
        for (int k = 0; k < n; ++k) to[k] = scores[h + k] + chunk.place + run.place;
        const float* from = query + h * width;
        if (keys.depth != 1) {
          dot_products_by_feature(from, n, keys, run.length, width, to);
          continue;
        }
        switch (n) {
          case 1: dot_products<1>(from, keys, run.length, width, to); break;
          case 2: dot_products<2>(from, keys, run.length, width, to); break;
          case 3: dot_products<3>(from, keys, run.length, width, to); break;
          default: dot_products<4>(from, keys, run.length, width, to);
        }
      }
    }
  }
}

REGARD_STEP void list_line(const Rows& rows, Line& line) {
  line.count = static_cast<int>(rows.walk.total);
  line.padded = (line.count + W - 1) / W * W;
  line.slot = rows.scratch.ints(Scratch::mask, 2 * static_cast<size_t>(line.padded + W));
  line.distance = line.slot + line.padded + W;
  for (int i = 0; i < rows.walk.num_chunks; ++i) {
    const Chunk& chunk = rows.walk.chunks[i];
    for (int r = 0; r < chunk.num_runs; ++r) {
      const Run& run = rows.walk.runs[chunk.first_run + r];
      int* slot = line.slot + chunk.place + run.place;
      int* distance = line.distance + chunk.place + run.place;
      for (int j = 0; j < run.length; ++j) slot[j] = run.key + j;
      if (!rows.has_positions) continue;
      const int64_t* position = rows.call.key_positions.at<const int64_t>(rows.block.batch, run.key);
      for (int j = 0; j < run.length; ++j) distance[j] = static_cast<int>(position[j] - rows.base);
    }
  }
  for (int j = line.count; j < line.padded + W; ++j) line.slot[j] = line.distance[j] = 0;
}

// One term of one head, added to its scores.
REGARD_STEP void apply_to_line(const Rows& rows, const Term& term, int row, const Line& line, float* s) {
  const View& tensor = term.tensor;
  const int head = rows.block.head[row];
  switch (term.kind) {
    case Term::key_bias:
    case Term::table: {
      const float* bias = tensor.at<const float>(rows.block.batch, head, rows.block.query[row]);
      for (int j = 0; j < line.count; ++j) s[j] += bias[line.slot[j] * tensor.stride[3]];
      break;
    }
    case Term::slope: {
      const vf slope = splat(*tensor.at<const float>(head));
      for (int j = 0; j < line.padded; j += W) store(s + j, fma(slope, to_float(load(line.distance + j)), load(s + j)));
      break;
    }
    case Term::distance: {
      const int reach = static_cast<int>(tensor.shape[1] / 2);
      const vf low = splat(static_cast<float>(-reach)), high = splat(static_cast<float>(reach));
      const float* table = tensor.at<const float>(head);
      for (int j = 0; j < line.padded; j += W) {
        const vf clipped = min(max(to_float(load(line.distance + j)), low), high);
        store(s + j, load(s + j) + gather(table, __builtin_convertvector(clipped, vi) + splat(reach)));
      }
      break;
    }
    case Term::softcap: {
      const vf cap = splat(term.number);
      for (int j = 0; j < line.padded; j += W) store(s + j, cap * hyperbolic_tangent(load(s + j) / cap));
      break;
    }
  }
}

// -inf where one head of several does not see a key that another does.
static void hide_in_line(const Rows& rows, int row, const Line& line, float* s) {
  const Call& call = rows.call;
  if (rows.block.rows == 1 || (call.start.stride[1] == 0 && call.stop.stride[1] == 0)) return;
  const int64_t batch = rows.block.batch, head = rows.block.head[row], query = rows.block.query[row];
  for (int j = 0; j < line.count; ++j) {
    bool seen = false;
    for (int64_t r = 0; r < call.start.shape[3]; ++r)
      seen = seen || (*call.start.at<const int>(batch, head, query, r) <= line.slot[j] &&
                      line.slot[j] < *call.stop.at<const int>(batch, head, query, r));
    if (!seen) s[j] = minus_infinity();
  }
}

// Σ_j f(j) over a line, in laps; f gives a vector from key j on. What lies beyond the line counts 0 in f.
template <class F>
REGARD_INLINE double line_sum(const Line& line, F&& f) {
  double total = 0;
  for (int begin = 0; begin < line.padded; begin += LAP) {
    const int end = begin + LAP < line.padded ? begin + LAP : line.padded;
    vf sum[4] = {zero(), zero(), zero(), zero()};
    int j = begin;
    for (; j + 4 * W <= end; j += 4 * W)
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) sum[i] = f(sum[i], j + i * W);
    for (; j < end; j += W) sum[0] = f(sum[0], j);
    total += sum_of((sum[0] + sum[1]) + (sum[2] + sum[3]));
  }
  return total;
}

// scores -> e of one head, with m, l and u.
REGARD_STEP void line_exponentials(const Line& line, float* s, int row, RowState& state) {
  vf best = splat(minus_infinity());
  for (int j = line.count; j < line.padded; ++j) s[j] = minus_infinity();
  for (int j = 0; j < line.padded; j += W) best = max(load(s + j), best);
  const float m = max_of(best);
  const vf safe = splat(m > minus_infinity() ? m : 0);
  double* sums = state.sums + row;
  double log_weighted = 0;
  sums[weight_sum * BLOCK_ROWS] = 0;
  for (int begin = 0; begin < line.padded; begin += LAP) {
    const int end = begin + LAP < line.padded ? begin + LAP : line.padded;
    vf total = zero(), weighted = zero();
    for (int j = begin; j < end; j += W) {
      const vf x = max(splat(LOWEST), load(s + j) - safe);  // NaN stays NaN
      const vf e = exponential(x);
      store(s + j, e);
      total = total + e;
      weighted = fma(e, x, weighted);
    }
    sums[weight_sum * BLOCK_ROWS] += sum_of(total);
    log_weighted += sum_of(weighted);
  }
  if (state.num_sums > log_sum) sums[log_sum * BLOCK_ROWS] = log_weighted;
  for (int j = line.count; j < line.padded; ++j) s[j] = 0;
  state.highest[row] = m;
  state.reference[row] = m;
  state.safe_reference[row] = safe[0];
}

// Σ_j e_j f(j) over the runs of a line. many: a vector of sums with what keys key … key+W-1 add; one: what one key adds.
template <class Many, class One>
REGARD_INLINE double run_sum(const Rows& rows, const float* e, Many&& many, One&& one) {
  double total = 0;
  for (int i = 0; i < rows.walk.num_chunks; ++i) {
    const Chunk& chunk = rows.walk.chunks[i];
    for (int r = 0; r < chunk.num_runs; ++r) {
      const Run& run = rows.walk.runs[chunk.first_run + r];
      const float* here = e + chunk.place + run.place;
      vf sum = zero();
      int j = 0;
      for (; j + W <= run.length; j += W) sum = many(sum, load(here + j), run.key + j);
      float rest = sum_of(sum);
      for (; j < run.length; ++j) rest += one(here[j], run.key + j);
      total += rest;
    }
  }
  return total;
}

// Every sum over one row. e: as it is, or scaled by key.
REGARD_STEP void line_sums(const Rows& rows, const Line& line, const float* e, int row, RowState& state) {
  const Call& call = rows.call;
  const int64_t batch = rows.block.batch, query = rows.block.query[row];
  double* sums = state.sums + first_extra * BLOCK_ROWS + row;
  for (int i = 0; i < call.num_statistics; ++i) {
    const Statistic& wanted = call.statistics[i];
    if (wanted.kind == Statistic::sum) {
      const float* feature = wanted.first.at<const float>(batch);
      *sums = run_sum(
          rows, e, [=](vf sum, vf x, int key) { return fma(x, load(feature + key), sum); },
          [=](float x, int key) { return x * feature[key]; });
    } else if (wanted.kind == Statistic::match) {
      const int own = *wanted.first.at<const int>(batch, query);
      const int* label = wanted.second.at<const int>(batch);
      *sums = run_sum(
          rows, e, [=](vf sum, vf x, int key) { return add_where(equal(load(label + key), splat(own)), sum, x); },
          [=](float x, int key) { return label[key] == own ? x : 0.f; });
    } else if (wanted.kind == Statistic::distance) {
      *sums = line_sum(
          line, [=](vf sum, int j) { return fma(magnitude(to_float(load(line.distance + j))), load(e + j), sum); });
    } else {
      continue;
    }
    sums += BLOCK_ROWS;
  }
}

// A finished segment, keys begin … end-1 of the line and of one map cell, for the histogram and the map.
REGARD_INLINE void add_segment(const Wanted& wanted, const Line& line, const float* a, int begin, int end,
                               const Columns& to) {
  float sum = 0, most = 0;
  int least = INT32_MAX, greatest = 0;
  const int* distance = line.distance;
  if (end - begin == SEGMENT) {
    vf sums = zero(), largest = zero();
    for (int j = begin; j < end; j += W) {
      sums = sums + load(a + j);
      largest = max(load(a + j), largest);
    }
    sum = sum_of(sums);
    most = max_of(largest);
  } else {
    for (int j = begin; j < end; ++j) {
      sum += a[j];
      most = most > a[j] ? most : a[j];
    }
  }
  if (wanted.histogram) {
    for (int j = begin; j < end; ++j) {
      const int size = distance[j] < 0 ? -distance[j] : distance[j];
      least = size < least ? size : least;
      greatest = size > greatest ? size : greatest;
    }
    const int bins = static_cast<int>(wanted.histogram->size);
    const int first = bin_of(least, bins), last = bin_of(greatest, bins);
    if (first == last) {
      to.histogram[first] += sum;
    } else {
      for (int j = begin; j < end; ++j)
        to.histogram[bin_of(distance[j] < 0 ? -int64_t{distance[j]} : distance[j], bins)] += a[j];
    }
  }
  if (wanted.pool) {
    const int64_t cell = line.slot[begin] >> wanted.pool->key_shift;  // the row is in the first row of cells
    to.pool_sum[cell] += sum;
    to.pool_max[cell] = most > to.pool_max[cell] ? most : to.pool_max[cell];
  }
}

REGARD_STEP void sweep_segments(const Wanted& wanted, const Line& line, const float* a, const Columns& to) {
  if (!wanted.histogram && !wanted.pool) return;
  const int side = wanted.pool && wanted.pool->key_shift < 5 ? 1 << wanted.pool->key_shift : SEGMENT;
  for (int begin = 0; begin < line.count;) {
    int end = begin + side - line.slot[begin] % side;  // to the next anchor, if no key in between is left out
    if (end > line.count) end = line.count;
    if (line.slot[end - 1] - line.slot[begin] != end - 1 - begin)
      for (end = begin + 1; line.slot[end] == line.slot[end - 1] + 1; ++end) {
      }
    add_segment(wanted, line, a, begin, end, to);
    begin = end;
  }
}

REGARD_STEP void sweep_links(Links& links, const Line& line, const float* a, int row) {
  for (int j = 0; j < line.padded; j += W)
    for (unsigned above = bits(less(splat(links.bar[row]), load(a + j))); above; above &= above - 1) {
      const int at = j + __builtin_ctz(above);
      insert(links, row, a[at], line.slot[at]);
    }
}

// a of one head -> every sum over rows, the strongest links, the maximum where a key scale made it unknown.
static void sweep_line(const Rows& rows, const Wanted& wanted, const Line& line, const float* a, int row, Links& links,
                       const Columns& to) {
  if (to.mass != nullptr) {
    for (int i = 0; i < rows.walk.num_chunks; ++i) {
      const Chunk& chunk = rows.walk.chunks[i];
      for (int r = 0; r < chunk.num_runs; ++r) {
        const Run& run = rows.walk.runs[chunk.first_run + r];
        const float* here = a + chunk.place + run.place;
        for (int j = 0; j < run.length; ++j) to.mass[run.key + j] += here[j];
      }
    }
  }
  sweep_segments(wanted, line, a, to);
  if (wanted.topk) {
    sweep_links(links, line, a, row);
    write_links(rows, links, *wanted.topk, rows.block.head[row]);
  }
  if (!wanted.keyed_max) return;
  vf most = zero();
  for (int j = 0; j < line.padded; j += W) most = max(load(a + j), most);
  for (int i = 0; i < rows.call.num_statistics; ++i)
    if (rows.call.statistics[i].kind == Statistic::max)
      *rows.call.statistics[i].result.at<float>(rows.block.batch, rows.block.head[row], rows.block.query[row]) =
          max_of(most);
}

// e times the key scale, in place.
static void scale_line(const Rows& rows, const Line& line, int row, float* e) {
  const View& scale = rows.call.key_scale;
  if (!scale) return;
  const float* factor = scale.at<const float>(rows.block.batch, rows.block.head[row]);
  for (int j = 0; j < line.count; ++j) e[j] *= factor[line.slot[j] * scale.stride[2]];
}

// The rows of a block are one query's heads.
static void observe_block(Rows& rows, const Wanted& wanted, const Slab& slab) {
  const Call& call = rows.call;
  const int heads = rows.block.rows;
  rows.walk.plan(call, rows.block);
  rows.vectors = (heads + W - 1) / W;
  rows.lanes = rows.vectors * W;
  rows.has_positions = reads_positions(call);
  if (rows.has_positions) rows.base = *call.query_positions.at<const int64_t>(rows.block.batch, rows.block.query[0]);
  RowState state;
  start_state(state, wanted.num_sums, rows.scratch);
  Line line;
  list_line(rows, line);
  const int64_t width = call.key_width(), stride = line.padded + W;
  float* query = rows.scratch.floats(Scratch::query, width * heads);
  float* all = rows.scratch.floats(Scratch::scores, static_cast<size_t>(stride) * heads);
  float* scores[BLOCK_ROWS];
  for (int row = 0; row < heads; ++row) {
    const Operand from = float_rows(call.q, rows.block.batch, rows.block.head[row], rows.block.query[row], 1, width,
                                    query + row * width);
    const float scale = call.head_scale ? *call.head_scale.at<const float>(rows.block.head[row]) : call.scale;
    for (int64_t d = 0; d < width; ++d) query[row * width + d] = from.data[d] * scale;
    scores[row] = all + row * stride;
    for (int j = line.count; j < stride; ++j) scores[row][j] = 0;
  }
  score_line(rows, query, scores);
  for (int row = 0; row < heads; ++row) {
    for (int i = 0; i < call.num_terms; ++i) apply_to_line(rows, call.terms[i], row, line, scores[row]);
    hide_in_line(rows, row, line, scores[row]);
    line_exponentials(line, scores[row], row, state);
    scale_line(rows, line, row, scores[row]);
    if (wanted.watched) line_sums(rows, line, scores[row], row, state);
  }
  const Finished done = finish_rows(rows, state);
  write_rows(rows, state, done);
  if (!wanted.sweeps) return;
  Links links;
  if (wanted.topk) start_links(links, rows, *wanted.topk);
  for (int row = 0; row < heads; ++row) {
    const vf inverse = splat(done.counted_inverse[row]);
    for (int j = 0; j < line.padded; j += W) store(scores[row] + j, load(scores[row] + j) * inverse);
    sweep_line(rows, wanted, line, scores[row], row, links, slab.columns ? slab.columns[row] : Columns());
  }
}

static void observe(const Call& call, const Slab& slab) {
  const FlushTiny flush;
  const Wanted wanted(call);
  Rows rows(call, Scratch::mine());
  for (int64_t first = 0; first < slab.num_heads; first += BLOCK_ROWS) {
    Slab part = slab;
    part.first_head += first;
    part.num_heads = slab.num_heads - first < BLOCK_ROWS ? slab.num_heads - first : BLOCK_ROWS;
    if (part.columns != nullptr) part.columns += first;
    Block& block = rows.block;
    block.batch = slab.batch;
    block.group = slab.first_head / (call.heads() / call.groups());
    block.one_head = part.num_heads == 1;
    block.rows = static_cast<int>(part.num_heads);
    for (int row = 0; row < block.rows; ++row) {
      block.head[row] = static_cast<int>(part.first_head + row);
      block.query[row] = slab.begin;
    }
    observe_block(rows, wanted, part);
  }
}

// What a slab asks for, by the kernel that fits it.
static void walk_slab(const Call& call, const Slab& slab) {
  if (call.queries() == 1 && !call.out) {
    observe(call, slab);
  } else {
    attend(call, slab);
  }
}

}  // namespace regard::REGARD_ISA
