#include "layer.h"

#include <algorithm>

#include "kernels.h"
#include "pool.h"

namespace regard {
namespace {

InputRows rows_of(const float* x, int64_t width, int64_t first, int64_t last, const float* gain, float eps) {
  return {x + first * width, width, last - first, width, gain, eps};
}

// f(first, last) for the rows of each thread.
template <class F>
void over_rows(int64_t rows, int64_t tasks, int threads, F&& f) {
  parallel(tasks, threads, [&](int64_t task) { f(share_of(rows, task, tasks), share_of(rows, task + 1, tasks)); });
}

constexpr int64_t TURNED_ALONE = 1 << 13;  // numbers that are turned faster than a thread wakes

}  // namespace

void before_attention(const Layer& layer, const Step& step, const View& keys, const View& values, int threads) {
  const Weights& w = layer.joined;
  const int64_t tasks = shares_of(step.rows, threads);
  if (tasks > 1) {  // every thread takes its rows through all of it
    over_rows(step.rows, tasks, threads, [&](int64_t first, int64_t last) {
      multiply_rows(w, rows_of(step.hidden, w.depth, first, last, layer.attention_gain, layer.eps),
                    step.joined + first * step.joined_row, step.joined_row, Into::store);
      kernels().rotate(layer, step, keys, values, first, last);
    });
    return;
  }
  multiply_packed(w, rows_of(step.hidden, w.depth, 0, step.rows, layer.attention_gain, layer.eps), step.joined,
                  step.joined_row, Into::store, threads);
  const int64_t parts = step.rows * step.joined_row <= TURNED_ALONE ? 1 : std::min<int64_t>(threads, step.rows);
  parallel(parts, threads, [&](int64_t part) {
    kernels().rotate(layer, step, keys, values, part * step.rows / parts, (part + 1) * step.rows / parts);
  });
}

void after_attention(const Layer& layer, const Step& step, int threads) {
  const int64_t hidden = layer.out.outputs, between = layer.down.depth;
  const auto attended = [&](int64_t a, int64_t b) { return rows_of(step.attended, layer.out.depth, a, b, nullptr, 0); };
  const auto normed = [&](int64_t a, int64_t b) {
    return rows_of(step.hidden, hidden, a, b, layer.feed_gain, layer.eps);
  };
  const auto gated = [&](int64_t a, int64_t b) { return rows_of(step.between, between, a, b, nullptr, 0); };
  const int64_t tasks = shares_of(step.rows, threads), n = step.rows;
  if (tasks > 1) {
    over_rows(n, tasks, threads, [&](int64_t first, int64_t last) {
      float *h = step.hidden + first * hidden, *z = step.between + first * between;
      multiply_rows(layer.out, attended(first, last), h, hidden, Into::add);
      multiply_rows(layer.gated, normed(first, last), z, between, Into::gated);
      multiply_rows(layer.down, gated(first, last), h, hidden, Into::add);
    });
    return;
  }
  multiply_packed(layer.out, attended(0, n), step.hidden, hidden, Into::add, threads);
  multiply_packed(layer.gated, normed(0, n), step.between, between, Into::gated, threads);
  multiply_packed(layer.down, gated(0, n), step.hidden, hidden, Into::add, threads);
}

}  // namespace regard
