#include "forward.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <vector>

#include "kernels.h"
#include "pool.h"

namespace regard {
namespace {

// How a call is cut. It depends on the numbers of queries and heads per group alone, never on batch or threads, so
// the order in which float64 sums are merged is always the same.
struct Cut {
  int64_t heads_together;  // few queries: the heads that share keys are computed as one block of rows
  int64_t slabs, rows;     // per head

  explicit Cut(const Call& call) {
    const int64_t shared = call.heads() / call.groups();
    heads_together = call.queries() < 16 ? shared : 1;
    slabs = heads_together > 1 ? 1 : std::clamp<int64_t>(call.queries() / 256, 1, 8);
    rows = (call.queries() + slabs - 1) / slabs;
    rows = (rows + 63) / 64 * 64;
    slabs = std::max<int64_t>(1, (call.queries() + rows - 1) / rows);
  }
};

struct Sizes {  // of one head's sums over rows, in elements
  int64_t mass = 0, bins = 0, cells = 0;

  explicit Sizes(const Call& call) {
    for (int i = 0; i < call.num_statistics; ++i) {
      const Statistic& s = call.statistics[i];
      if (s.kind == Statistic::column_mass) mass = call.keys();
      if (s.kind == Statistic::histogram) bins = s.size;
      if (s.kind == Statistic::pool) cells = s.result.shape[2] * s.result.shape[3];
    }
  }
  int64_t bytes() const { return (mass + bins + cells) * 8 + cells * 4; }
  Columns place(char* memory) const {
    Columns columns;
    double* at = reinterpret_cast<double*>(memory);
    if (mass) columns.mass = at;
    if (bins) columns.histogram = at + mass;
    if (cells) columns.pool_sum = at + mass + bins;
    if (cells) columns.pool_max = reinterpret_cast<float*>(at + mass + bins + cells);
    return columns;
  }
};

// Adds one slab's sums to the call's results.
void merge(const Call& call, const Sizes& sizes, int64_t batch, int64_t head, const Columns& part) {
  for (int i = 0; i < call.num_statistics; ++i) {
    const Statistic& s = call.statistics[i];
    double* to = s.result.at<double>(batch, head);
    if (s.kind == Statistic::column_mass)
      for (int64_t j = 0; j < sizes.mass; ++j) to[j] += part.mass[j];
    if (s.kind == Statistic::histogram)
      for (int64_t j = 0; j < sizes.bins; ++j) to[j] += part.histogram[j];
    if (s.kind == Statistic::pool) {
      float* most = s.second_result.at<float>(batch, head);
      for (int64_t j = 0; j < sizes.cells; ++j) {
        to[j] += part.pool_sum[j];
        most[j] = std::max(most[j], part.pool_max[j]);
      }
    }
  }
}

void clear(const Call& call, const Sizes& sizes, int64_t batch, int64_t head) {
  for (int i = 0; i < call.num_statistics; ++i) {
    const Statistic& s = call.statistics[i];
    double* to = s.result.at<double>(batch, head);
    if (s.kind == Statistic::column_mass) std::memset(to, 0, sizes.mass * 8);
    if (s.kind == Statistic::histogram) std::memset(to, 0, sizes.bins * 8);
    if (s.kind == Statistic::pool) {
      std::memset(to, 0, sizes.cells * 8);
      std::memset(s.second_result.at<float>(batch, head), 0, sizes.cells * 4);
    }
  }
}

}  // namespace

void forward(const Call& call, int threads) {
  const Kernels& run = kernels();
  const Cut cut(call);
  const Sizes sizes(call);
  const int64_t units = call.batch() * call.heads() / cut.heads_together, tasks = units * cut.slabs;
  std::vector<std::unique_ptr<char[]>> parts(static_cast<size_t>(tasks));
  std::unique_ptr<std::atomic<int>[]> left(new std::atomic<int>[static_cast<size_t>(units)]);
  for (int64_t unit = 0; unit < units; ++unit) left[unit] = static_cast<int>(cut.slabs);

  parallel(tasks, threads, [&](int64_t task) {
    const int64_t unit = task / cut.slabs, index = cut.slabs - 1 - task % cut.slabs;  // causal: the long ones first
    const int64_t head_units = call.heads() / cut.heads_together;
    const int64_t batch = unit / head_units, head = unit % head_units * cut.heads_together;
    std::vector<Columns> columns(static_cast<size_t>(cut.heads_together));
    if (sizes.bytes() > 0) {
      auto& memory = parts[static_cast<size_t>(unit * cut.slabs + index)];
      const int64_t bytes = (sizes.bytes() + 7) / 8 * 8;
      memory.reset(new char[static_cast<size_t>(bytes * cut.heads_together)]());
      for (int64_t h = 0; h < cut.heads_together; ++h) columns[static_cast<size_t>(h)] = sizes.place(memory.get() + h * bytes);
    }
    const int64_t begin = index * cut.rows;
    run.attend(call, {batch, head, cut.heads_together, begin, std::min(begin + cut.rows, call.queries()), columns.data()});
    if (sizes.bytes() == 0 || left[unit].fetch_sub(1) > 1) return;
    for (int64_t h = 0; h < cut.heads_together; ++h) {  // the last slab of a head merges them all, in row order
      clear(call, sizes, batch, head + h);
      for (int64_t slab = 0; slab < cut.slabs; ++slab) {
        auto& memory = parts[static_cast<size_t>(unit * cut.slabs + slab)];
        merge(call, sizes, batch, head + h, sizes.place(memory.get() + h * ((sizes.bytes() + 7) / 8 * 8)));
        if (h + 1 == cut.heads_together) memory.reset();
      }
    }
  });
}

}  // namespace regard
