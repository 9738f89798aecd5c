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
    rows = std::max<int64_t>(64, (rows + 63) / 64 * 64);
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

// One head's results as sums over rows.
Columns results(const Call& call, int64_t batch, int64_t head) {
  Columns columns;
  for (int i = 0; i < call.num_statistics; ++i) {
    const Statistic& s = call.statistics[i];
    if (s.kind == Statistic::column_mass) columns.mass = s.result.at<double>(batch, head);
    if (s.kind == Statistic::histogram) columns.histogram = s.result.at<double>(batch, head);
    if (s.kind == Statistic::pool) {
      columns.pool_sum = s.result.at<double>(batch, head);
      columns.pool_max = s.second_result.at<float>(batch, head);
    }
  }
  return columns;
}

// One call, its cut and what its slabs have summed so far.
struct Job {
  const Call& call;
  Cut cut;
  Sizes sizes;
  int64_t units, tasks, part_bytes;
  std::vector<std::unique_ptr<char[]>> parts;
  std::unique_ptr<std::atomic<int>[]> left;

  explicit Job(const Call& c) : call(c), cut(c), sizes(c) {
    units = call.batch() * call.heads() / cut.heads_together;
    tasks = units * cut.slabs;
    part_bytes = (sizes.bytes() + 7) / 8 * 8;
    if (part_bytes == 0 || cut.slabs == 1) return;
    parts.resize(static_cast<size_t>(tasks));
    left.reset(new std::atomic<int>[static_cast<size_t>(units)]);
    for (int64_t unit = 0; unit < units; ++unit) left[unit] = static_cast<int>(cut.slabs);
  }

  void run(int64_t task) {
    const int64_t unit = task / cut.slabs, index = cut.slabs - 1 - task % cut.slabs;  // causal: the long ones first
    const int64_t head_units = call.heads() / cut.heads_together;
    const int64_t batch = unit / head_units, head = unit % head_units * cut.heads_together;
    std::vector<Columns> columns(static_cast<size_t>(cut.heads_together));
    const bool alone = cut.slabs == 1;  // its sums are the results
    if (part_bytes > 0 && alone) {
      for (int64_t h = 0; h < cut.heads_together; ++h) {
        clear(call, sizes, batch, head + h);
        columns[static_cast<size_t>(h)] = results(call, batch, head + h);
      }
    } else if (part_bytes > 0) {
      auto& memory = parts[static_cast<size_t>(unit * cut.slabs + index)];
      memory.reset(new char[static_cast<size_t>(part_bytes * cut.heads_together)]());
      for (int64_t h = 0; h < cut.heads_together; ++h)
        columns[static_cast<size_t>(h)] = sizes.place(memory.get() + h * part_bytes);
    }
    const int64_t begin = index * cut.rows, end = std::min(begin + cut.rows, call.queries());
    kernels().attend(call, {batch, head, cut.heads_together, begin, end, columns.data()});
    if (part_bytes > 0 && !alone && left[unit].fetch_sub(1) == 1) finish(unit, batch, head);
  }

  // The last slab of a head merges them all, in row order.
  void finish(int64_t unit, int64_t batch, int64_t head) {
    for (int64_t h = 0; h < cut.heads_together; ++h) {
      clear(call, sizes, batch, head + h);
      for (int64_t slab = 0; slab < cut.slabs; ++slab) {
        auto& memory = parts[static_cast<size_t>(unit * cut.slabs + slab)];
        merge(call, sizes, batch, head + h, sizes.place(memory.get() + h * part_bytes));
        if (h + 1 == cut.heads_together) memory.reset();
      }
    }
  }
};

void cut_axis(View& view, int axis, int64_t begin, int64_t end) {
  if (!view) return;
  const int64_t bytes[] = {4, 2, 2, 4, 8, 8, 1};
  view.address += static_cast<uintptr_t>(begin * view.stride[axis] * bytes[static_cast<int>(view.type)]);
  view.shape[axis] = end - begin;
}

// The part of a packed call that one document is. Lists are copied into terms and statistics.
Call document(const Call& packed, int64_t index, int64_t q0, int64_t q1, int64_t k0, int64_t k1, Term* terms,
              Statistic* statistics) {
  Call call = packed;
  for (View* view : {&call.q, &call.out, &call.row_max, &call.row_log_sum, &call.start, &call.stop})
    cut_axis(*view, 2, q0, q1);
  cut_axis(call.key_scale, 2, k0, k1);
  if (call.block_table) {
    cut_axis(call.block_table, 0, index, index + 1);
    call.num_slots = k1 - k0;
  } else {
    for (View* view : {&call.k, &call.v}) cut_axis(*view, 2, k0, k1);
  }
  cut_axis(call.query_positions, 1, q0, q1);
  cut_axis(call.key_positions, 1, k0, k1);
  cut_axis(call.counted, 1, q0, q1);
  for (int i = 0; i < call.num_terms; ++i) {
    terms[i] = packed.terms[i];
    if (terms[i].kind == Term::key_bias) cut_axis(terms[i].tensor, 3, k0, k1);
    if (terms[i].kind == Term::table) cut_axis(terms[i].tensor, 2, q0, q1);
  }
  for (int i = 0; i < call.num_statistics; ++i) {
    Statistic& s = statistics[i] = packed.statistics[i];
    if (s.kind == Statistic::sum) cut_axis(s.first, 1, k0, k1);
    if (s.kind == Statistic::match) {
      cut_axis(s.first, 1, q0, q1);
      cut_axis(s.second, 1, k0, k1);
    }
    if (s.kind == Statistic::column_mass) {
      cut_axis(s.result, 2, k0, k1);
    } else if (s.kind == Statistic::histogram) {
      cut_axis(s.result, 0, index, index + 1);
    } else if (s.kind != Statistic::pool) {  // a map is of one document alone
      cut_axis(s.result, 2, q0, q1);
      cut_axis(s.second_result, 2, q0, q1);
    }
  }
  call.terms = terms;
  call.statistics = statistics;
  return call;
}

// Below so many products of two numbers another thread comes too late: waking it takes as long as the whole call.
constexpr int64_t FEW_PRODUCTS = 1 << 19;

bool is_small(const std::vector<Call>& calls) {
  int64_t products = 0;
  for (const Call& call : calls)
    products += call.batch() * call.heads() * call.queries() * call.keys() * (call.key_width() + call.value_width());
  return products < FEW_PRODUCTS;
}

}  // namespace

void forward(const std::vector<Call>& calls, int threads) {
  std::vector<std::unique_ptr<Job>> jobs;
  std::vector<int64_t> first_task = {0};
  for (const Call& call : calls) {
    jobs.emplace_back(new Job(call));
    first_task.push_back(first_task.back() + jobs.back()->tasks);
  }
  parallel(first_task.back(), is_small(calls) ? 1 : threads, [&](int64_t task) {
    const auto after = std::upper_bound(first_task.begin(), first_task.end(), task);
    const size_t index = static_cast<size_t>(after - first_task.begin()) - 1;
    jobs[index]->run(task - first_task[index]);
  });
}

void forward_ragged(const Call& packed, const Documents& documents, int threads) {
  const auto& cu_query = documents.cu_query;
  const auto& cu_key = documents.cu_key;
  const size_t count = cu_query.size() - 1;
  std::vector<Term> terms(count * static_cast<size_t>(packed.num_terms) + 1);
  std::vector<Statistic> statistics(count * static_cast<size_t>(packed.num_statistics) + 1);
  std::vector<Call> calls;
  std::vector<size_t> order(documents.walked.begin(), documents.walked.end());
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {  // the long ones first
    return cu_query[a + 1] - cu_query[a] > cu_query[b + 1] - cu_query[b];
  });
  for (size_t s : order)
    calls.push_back(document(packed, static_cast<int64_t>(s), cu_query[s], cu_query[s + 1], cu_key[s], cu_key[s + 1],
                             terms.data() + s * static_cast<size_t>(packed.num_terms),
                             statistics.data() + s * static_cast<size_t>(packed.num_statistics)));
  forward(calls, threads);
}

void backward(const Call& call, int threads) {
  parallel(call.batch() * call.heads(), threads,
           [&](int64_t task) { kernels().backward(call, task / call.heads(), task % call.heads()); });
}

}  // namespace regard
