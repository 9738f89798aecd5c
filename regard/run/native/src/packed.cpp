#include "packed.h"

#include <algorithm>

#include "kernels.h"
#include "pool.h"

namespace regard {

constexpr int64_t TASK_PANELS = 8;

void multiply_packed(const PackedProduct& call, int threads) {
  if (call.rows == 0) return;
  const int64_t panels = (call.outputs + PANEL - 1) / PANEL;
  // Neighbouring panels go together, for each fetches the next; every thread gets as many tasks as any other.
  const int64_t rounds = (panels + TASK_PANELS * threads - 1) / (TASK_PANELS * threads);
  const int64_t tasks = std::min(panels, rounds * threads);
  parallel(tasks, threads, [&](int64_t task) {
    kernels().multiply_packed(call, task * panels / tasks, (task + 1) * panels / tasks);
  });
}

}  // namespace regard
