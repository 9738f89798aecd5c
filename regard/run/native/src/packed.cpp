#include "packed.h"

#include <algorithm>

#include "kernels.h"
#include "pool.h"

namespace regard {

void multiply_packed(const PackedProduct& call, int threads) {
  const int64_t panels = (call.outputs + PANEL - 1) / PANEL;
  const int64_t bytes = call.depth * PANEL * (call.int8 ? 1 : 4);
  const int64_t step = std::max<int64_t>(1, std::min((int64_t{256} << 10) / std::max<int64_t>(bytes, 1), panels / threads));
  parallel((panels + step - 1) / step, threads, [&](int64_t task) {
    kernels().multiply_packed(call, task * step, std::min((task + 1) * step, panels));
  });
}

}  // namespace regard
