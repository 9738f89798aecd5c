#include "packed.h"

#include <algorithm>

#include "pool.h"
#include "scratch.h"

namespace regard {
namespace {

constexpr int64_t ROWS_ALONE = 64;       // from so many rows a thread on, threads share rows and not panels
constexpr int64_t ROWS_BYTES = 1 << 20;  // of prepared rows that stay in a thread's cache while panels pass

// Rows first … last-1 by panels first_panel … last_panel-1, prepared by the thread that reads them.
void part(const Weights& weights, const InputRows& rows, int64_t first, int64_t last, float* y, int64_t y_row,
          Into into, int64_t first_panel, int64_t last_panel) {
  InputRows mine = rows;
  mine.x += first * rows.x_row;
  mine.rows = last - first;
  int64_t bytes = products().prepared_bytes(weights.stored, mine.rows, mine.depth), x_row = rows.x_row;
  const void* x = mine.x;
  if (bytes == 0 && rows.gain) bytes = mine.rows * mine.depth * 4;
  if (bytes != 0) {
    void* to = Scratch::mine().floats(Scratch::prepared, static_cast<size_t>(bytes + 3) / 4);
    products().prepare(mine, weights.stored, 0, mine.rows, to);
    x = to;
    x_row = mine.depth;
  }
  products().multiply({weights, x, x_row, mine.rows, y + first * y_row, y_row, into}, first_panel, last_panel);
}

}  // namespace

int64_t rows_at_once(const Weights& weights) {
  const int64_t bytes = products().prepared_bytes(weights.stored, 32, weights.depth);
  return std::max<int64_t>(1, ROWS_BYTES / std::max<int64_t>(bytes, weights.depth * 128)) * 32;
}

void multiply_rows(const Weights& weights, const InputRows& rows, float* y, int64_t y_row, Into into) {
  const int64_t panels = (weights.outputs + PANEL - 1) / PANEL, block = rows_at_once(weights);
  for (int64_t row = 0; row < rows.rows; row += block)
    part(weights, rows, row, std::min(row + block, rows.rows), y, y_row, into, 0, panels);
}

void multiply_packed(const Weights& weights, const InputRows& rows, float* y, int64_t y_row, Into into, int threads) {
  if (rows.rows == 0) return;
  const int64_t panels = (weights.outputs + PANEL - 1) / PANEL;
  if (threads > 1 && rows.rows >= ROWS_ALONE * threads) {
    const int64_t tasks = shares_of(rows.rows, threads);
    parallel(tasks, threads, [&](int64_t task) {
      const int64_t first = share_of(rows.rows, task, tasks), last = share_of(rows.rows, task + 1, tasks);
      InputRows mine = rows;
      mine.x += first * rows.x_row;
      mine.rows = last - first;
      multiply_rows(weights, mine, y + first * y_row, y_row, into);
    });
    return;
  }
  const int64_t tasks = std::min<int64_t>(panels, threads), block = rows_at_once(weights);
  parallel(tasks, threads, [&](int64_t task) {
    for (int64_t row = 0; row < rows.rows; row += block)
      part(weights, rows, row, std::min(row + block, rows.rows), y, y_row, into, task * panels / tasks,
           (task + 1) * panels / tasks);
  });
}

int64_t shares_of(int64_t rows, int threads) {
  return std::max<int64_t>(1, std::min<int64_t>(threads, rows / ROWS_ALONE));
}

int64_t share_of(int64_t rows, int64_t task, int64_t tasks) {
  return task == tasks ? rows : (rows * task / tasks + 15) / 32 * 32;
}

}  // namespace regard
