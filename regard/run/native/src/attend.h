// Attention of a slab of rows: the loop that everything else serves.
//
//   for each block of up to 64 rows
//     for each chunk of up to 96 keys that they see
//       s  = scores                              [key][row]
//       m, c, e = running maximum, rescaling, e^(s - m)
//       O  = c·O + Vᵀ e                          [value][row]
//       sums of row statistics
//     out = O / L
//     for each chunk again, where a statistic needs finished weights: a = e · f
#pragma once
#include "colstats.h"
#include "rowstats.h"

namespace regard::REGARD_ISA {

constexpr int64_t KEPT_KEYS = 16384;  // chunks' e are kept for the second sweep up to this many keys: 4 MB

struct Wanted {  // what a call asks of each block
  bool output, watched, sweeps, log, keyed_max;
  int num_sums;
  const Statistic* topk = nullptr;
  const Statistic* histogram = nullptr;
  const Statistic* pool = nullptr;

  explicit Wanted(const Call& call)
      : output(call.out), watched(call.num_statistics > 0), sweeps(false), log(false), keyed_max(false) {
    for (int i = 0; i < call.num_statistics; ++i) {
      const Statistic& s = call.statistics[i];
      log = log || s.kind == Statistic::entropy;
      keyed_max = keyed_max || (s.kind == Statistic::max && call.key_scale);
      if (s.kind == Statistic::topk) topk = &s;
      if (s.kind == Statistic::histogram) histogram = &s;
      if (s.kind == Statistic::pool) pool = &s;
      sweeps = sweeps || s.kind == Statistic::column_mass;
    }
    sweeps = sweeps || topk || histogram || pool || keyed_max;
    num_sums = watched ? num_row_sums(call) : 1;
  }
};

struct Kept {  // e of every chunk and the reference it is relative to, if the block's keys fit
  bool all = false;
  float* e = nullptr;          // [compact keys][lanes]
  float* reference = nullptr;  // [chunks][BLOCK_ROWS]
};

// O = c·O + Vᵀ e over the chunk's runs.
REGARD_STEP void mix(Rows& rows, const Chunk& chunk, const RowState& state, const float* e, float* output) {
  const Call& call = rows.call;
  const int64_t width = call.value_width();
  if (state.rescales) {
    for (int v = 0; v < rows.vectors; ++v) {
      const vf c = load(state.rescale + v * W);
      for (int64_t d = 0; d < width; ++d) {
        float* at = output + d * rows.lanes + v * W;
        store(at, load(at) * c);
      }
    }
  }
  for (int r = 0; r < chunk.num_runs; ++r) {
    const Run& run = rows.walk.runs[chunk.first_run + r];
    const Operand v = values_of(call, rows.scratch, rows.block, run);
    multiply<true>(width, rows.vectors, {v.data, 1, v.row}, e + int64_t{run.place} * rows.lanes, rows.lanes, output,
                   rows.lanes, run.length);
  }
}

struct Finished {  // per row: 1 / L for the output, the same for statistics (0 if not counted), log L
  alignas(64) float inverse[BLOCK_ROWS];
  alignas(64) float counted_inverse[BLOCK_ROWS];
  double log_total[BLOCK_ROWS];
  double share[BLOCK_ROWS];  // l / L
};

[[gnu::noinline]] static Finished finish_rows(const Rows& rows, const RowState& state) {
  const Call& call = rows.call;
  Finished done;
  for (int row = 0; row < rows.lanes; ++row) {
    const double l = state.sums[weight_sum * BLOCK_ROWS + row];
    const bool seen = row < rows.block.rows && state.highest[row] > minus_infinity();
    double total = __builtin_log(l), share = 1;
    if (seen && call.sink) {  // log(l + e^x), x = sink - m, without overflow for a large x
      const double x = double{*call.sink.at<const float>(rows.block.head[row])} - state.reference[row];
      const double larger = x > total ? x : total, smaller = x > total ? total : x;
      const double both_logs = larger + __builtin_log1p(__builtin_exp(smaller - larger));
      share = __builtin_exp(total - both_logs);
      total = both_logs;
    }
    const bool is_nan = l != l;
    done.log_total[row] = seen || is_nan ? total : 0;
    done.share[row] = seen ? share : 0;
    done.inverse[row] = seen || is_nan ? static_cast<float>(__builtin_exp(-total)) : 0;
    const bool counted = row < rows.block.rows && (!call.counted || *call.counted.at<const uint8_t>(
                                                                        rows.block.batch, rows.block.query[row]) != 0);
    done.counted_inverse[row] = counted ? done.inverse[row] : 0;
  }
  return done;
}

REGARD_STEP void write_output(const Rows& rows, const Finished& done, const float* output) {
  const View& out = rows.call.out;
  const Block& block = rows.block;
  const int64_t width = rows.call.value_width(), lanes = rows.lanes;
  for (int row = 0; row < block.rows; ++row) {
    const float* from = output + row;
    const float inverse = done.inverse[row];
    const int64_t at = out.offset(block.batch, block.head[row], block.query[row]);
    float* to = reinterpret_cast<float*>(out.address) + at;
    uint16_t* half = reinterpret_cast<uint16_t*>(out.address) + at;
    switch (out.type) {
      case Type::bf16:
        for (int64_t d = 0; d < width; ++d) half[d] = to_bf16(from[d * lanes] * inverse);
        break;
      case Type::f16:
        for (int64_t d = 0; d < width; ++d) half[d] = to_f16(from[d * lanes] * inverse);
        break;
      default:
        for (int64_t d = 0; d < width; ++d) to[d] = from[d * lanes] * inverse;
    }
  }
}

// How far a row's largest score lies above its reference.
static double above(const RowState& state, int row) {
  return state.highest[row] > minus_infinity() ? double{state.highest[row]} - state.reference[row] : 0;
}

REGARD_STEP void write_rows(const Rows& rows, const RowState& state, const Finished& done) {
  const Call& call = rows.call;
  const Block& block = rows.block;
  for (int row = 0; call.row_max && row < block.rows; ++row) {
    *call.row_max.at<float>(block.batch, block.head[row], block.query[row]) = state.highest[row];
    *call.row_log_sum.at<float>(block.batch, block.head[row], block.query[row]) =
        static_cast<float>(done.log_total[row] - above(state, row));
  }
  const double* extra = state.sums + first_extra * BLOCK_ROWS;
  for (int i = 0; i < call.num_statistics; ++i) {
    const Statistic& wanted = call.statistics[i];
    const bool is_sum =
        wanted.kind == Statistic::sum || wanted.kind == Statistic::match || wanted.kind == Statistic::distance;
    const bool is_max = wanted.kind == Statistic::max && !call.key_scale;
    if (!is_sum && !is_max && wanted.kind != Statistic::entropy) continue;
    for (int row = 0; row < block.rows; ++row) {
      float value = 0;
      if (done.counted_inverse[row] != 0 || done.counted_inverse[row] != done.counted_inverse[row]) {
        const double inverse = __builtin_exp(-done.log_total[row]);
        if (is_sum) value = static_cast<float>(extra[row] * inverse);
        if (is_max) value = static_cast<float>(__builtin_exp(above(state, row) - done.log_total[row]));
        if (wanted.kind == Statistic::entropy) {
          const double entropy =
              done.log_total[row] * done.share[row] - state.sums[log_sum * BLOCK_ROWS + row] * inverse;
          value = entropy > 0 ? static_cast<float>(entropy) : entropy != entropy ? static_cast<float>(entropy) : 0.f;
        }
      }
      *wanted.result.at<float>(block.batch, block.head[row], block.query[row]) = value;
    }
    if (is_sum) extra += BLOCK_ROWS;
  }
}

static void start_links(Links& links, const Rows& rows, const Statistic& topk) {
  links.k = static_cast<int>(topk.size);
  links.weight = rows.scratch.floats(Scratch::pairs, static_cast<size_t>(links.k) * BLOCK_ROWS * 2);
  links.key = reinterpret_cast<int*>(links.weight + links.k * BLOCK_ROWS);
  for (int row = 0; row < BLOCK_ROWS; ++row) {
    links.count[row] = 0;
    links.bar[row] = 0;
  }
}

static void write_links(const Rows& rows, const Links& links, const Statistic& topk, int head) {
  for (int row = 0; row < rows.block.rows; ++row) {
    if (rows.block.head[row] != head) continue;
    float* weight = topk.result.at<float>(rows.block.batch, rows.block.head[row], rows.block.query[row]);
    int* key = topk.second_result.at<int>(rows.block.batch, rows.block.head[row], rows.block.query[row]);
    for (int i = 0; i < links.k; ++i) {
      const bool used = i < links.count[row];
      weight[i] = used ? links.weight[row * links.k + i] : 0.f;
      key[i] = used ? links.key[row * links.k + i] : -1;
    }
  }
}

// e of a chunk relative to the final maximum, computed once more with the same arithmetic.
static void recompute(Rows& rows, const Chunk& chunk, const Keys& keys, RowState& state, float* e) {
  score_chunk(rows, chunk, keys, e);
  exponentials<false>(state, e, keys.count, rows.vectors);
}

// The second sweep, for the rows of one head of the block.
static void sweep(Rows& rows, const Wanted& wanted, const Kept& kept, RowState& state, const Finished& done,
                  const Bounds& bounds, int head, Columns& columns) {
  ColumnSums to;
  Links links;
  alignas(64) float inverse[BLOCK_ROWS], row_max[BLOCK_ROWS] = {};
  to.total = columns;
  to.histogram = wanted.histogram;
  to.pool = wanted.pool;
  if (to.pool && to.pool->key_shift < 5) to.segment = 1 << to.pool->key_shift;
  if (wanted.keyed_max) to.row_max = row_max;
  for (int row = 0; row < rows.lanes; ++row)
    inverse[row] = row < rows.block.rows && rows.block.head[row] == head ? done.counted_inverse[row] : 0;
  if (wanted.topk) {
    start_links(links, rows, *wanted.topk);
    to.links = &links;
    if (!rows.call.key_scale) {  // a little lower than the bound, for what rounding may do to it
      const float* bound = bounds.best + (bounds.k - 1) * BLOCK_ROWS;
      for (int v = 0; v < rows.vectors; ++v) {
        const vf x = max(splat(LOWEST), load(bound + v * W) - load(state.safe_reference + v * W));
        store(links.bar + v * W, exponential(x) * load(inverse + v * W) * splat(1 - 4e-5f));
      }
    }
  }
  if (to.histogram) {
    to.bins = rows.scratch.floats(Scratch::bins, to.histogram->size * W);
    for (int64_t i = 0; i < to.histogram->size * W; ++i) to.bins[i] = 0;
    for (int v = 0; v < rows.vectors; ++v)
      lowest_and_highest(rows.position + v * W, W, to.position_low[v], to.position_high[v]);
  }
  Keys keys;
  for (int row = 0; row < BLOCK_ROWS; ++row) rows.first_interval[row] = 0;
  for (int i = 0; i < rows.walk.num_chunks; ++i) {
    const Chunk& chunk = rows.walk.chunks[i];
    float* e = kept.all ? kept.e + chunk.place * rows.lanes : kept.e;
    list_keys(rows, chunk, keys);
    if (!kept.all) recompute(rows, chunk, keys, state, e);
    for (int v = 0; v < rows.vectors; ++v) {
      vf factor = load(inverse + v * W);
      if (kept.all) {
        const vf change =
            max(splat(LOWEST), load(kept.reference + i * BLOCK_ROWS + v * W) - load(state.safe_reference + v * W));
        factor = exponential(change) * factor;
      }
      store(to.factor + v * W, factor);
    }
    sweep_chunk(to, rows, chunk, keys, scaled_by_key(rows, keys, e));
  }
  if (to.histogram)
    for (int64_t bin = 0; bin < to.histogram->size; ++bin) columns.histogram[bin] += sum_of(load(to.bins + bin * W));
  for (int row = 0; row < rows.block.rows; ++row) {
    if (rows.block.head[row] != head) continue;
    for (int i = 0; wanted.keyed_max && i < rows.call.num_statistics; ++i)
      if (rows.call.statistics[i].kind == Statistic::max)
        *rows.call.statistics[i].result.at<float>(rows.block.batch, head, rows.block.query[row]) = row_max[row];
  }
  if (wanted.topk) write_links(rows, links, *wanted.topk, head);
}

static void attend_block(Rows& rows, const Wanted& wanted, const Slab& slab) {
  const Call& call = rows.call;
  Scratch& scratch = rows.scratch;
  start_rows(rows);
  RowState state;
  start_state(state, wanted.num_sums, scratch);
  Kept kept;
  kept.all = wanted.sweeps && rows.walk.total <= KEPT_KEYS;
  kept.e = scratch.floats(Scratch::scores, (kept.all ? rows.walk.total + CHUNK : CHUNK) * rows.lanes);
  if (kept.all)
    kept.reference = scratch.floats(Scratch::references, static_cast<size_t>(rows.walk.num_chunks) * BLOCK_ROWS);
  Bounds bounds;
  if (wanted.topk && !call.key_scale) {
    bounds.k = static_cast<int>(wanted.topk->size);
    bounds.best = scratch.floats(Scratch::weights, static_cast<size_t>(bounds.k) * BLOCK_ROWS);
    for (int i = 0; i < bounds.k * BLOCK_ROWS; ++i) bounds.best[i] = minus_infinity();
  }
  float* output = nullptr;
  if (wanted.output) {
    output = scratch.floats(Scratch::output, call.value_width() * rows.lanes);
    for (int64_t i = 0; i < call.value_width() * rows.lanes; ++i) output[i] = 0;
  }
  Keys keys;
  const Labels* labels = start_matches(rows);
  const int length = !bounds.k ? CHUNK : rows.walk.total < 1024 ? 8 : SEGMENT;
  alignas(64) float best[CHUNK / 8 * BLOCK_ROWS];
  for (int i = 0; i < rows.walk.num_chunks; ++i) {
    const Chunk& chunk = rows.walk.chunks[i];
    float* e = kept.all ? kept.e + chunk.place * rows.lanes : kept.e;
    list_keys(rows, chunk, keys);
    score_chunk(rows, chunk, keys, e);
    const int pieces = piece_maxima(e, keys.count, rows.vectors, length, best);
    if (bounds.k) raise_bounds(bounds, best, pieces, rows.vectors);
    raise_reference(state, best, pieces, rows.vectors);
    if (wanted.log) {
      exponentials<true>(state, e, keys.count, rows.vectors);
    } else {
      exponentials<false>(state, e, keys.count, rows.vectors);
    }
    if (kept.all) std::memcpy(kept.reference + i * BLOCK_ROWS, state.safe_reference, sizeof state.safe_reference);
    if (wanted.watched) sum_rows(rows, chunk, state, keys, labels, scaled_by_key(rows, keys, e));
    fold(state, rows.lanes);
    if (wanted.output) mix(rows, chunk, state, e, output);
  }
  const Finished done = finish_rows(rows, state);
  if (wanted.output) write_output(rows, done, output);
  write_rows(rows, state, done);
  if (!wanted.sweeps) return;
  for (int64_t h = 0; h < slab.num_heads; ++h) {
    const int head = static_cast<int>(slab.first_head + h);
    bool present = false;
    for (int row = 0; row < rows.block.rows; ++row) present = present || rows.block.head[row] == head;
    Columns none;
    if (present) sweep(rows, wanted, kept, state, done, bounds, head, slab.columns ? slab.columns[h] : none);
  }
}

static void attend(const Call& call, const Slab& slab) {
  const FlushTiny flush;
  const Wanted wanted(call);
  Rows rows(call, Scratch::mine());
  const int64_t per_head = slab.end - slab.begin, total = per_head * slab.num_heads;
  for (int64_t first = 0; first < total; first += BLOCK_ROWS) {
    Block& block = rows.block;
    block.batch = slab.batch;
    block.group = slab.first_head / (call.heads() / call.groups());
    block.one_head = slab.num_heads == 1;
    block.rows = static_cast<int>(total - first < BLOCK_ROWS ? total - first : BLOCK_ROWS);
    for (int row = 0; row < block.rows; ++row) {
      block.head[row] = static_cast<int>(slab.first_head + (first + row) / per_head);
      block.query[row] = slab.begin + (first + row) % per_head;
    }
    attend_block(rows, wanted, slab);
  }
}

}  // namespace regard::REGARD_ISA
