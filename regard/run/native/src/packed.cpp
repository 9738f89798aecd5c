#include "packed.h"

#include <algorithm>

#include "kernels.h"
#include "pool.h"

namespace regard {

void multiply_packed(const PackedProduct& call, int threads) {
  if (call.rows == 0) return;
  const int64_t panels = (call.outputs + PANEL - 1) / PANEL;
  const int64_t step = std::clamp<int64_t>((panels + threads - 1) / threads, 1, 16);  // neighbours: fetched ahead
  parallel((panels + step - 1) / step, threads, [&](int64_t task) {
    kernels().multiply_packed(call, task * step, std::min((task + 1) * step, panels));
  });
}

}  // namespace regard
