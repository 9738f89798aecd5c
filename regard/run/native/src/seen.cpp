#include "seen.h"

#include <algorithm>

#include "kernels.h"
#include "pool.h"

namespace regard {

void see(const SeenStep& step, const SeenLayer& layer, int threads) {
  // A sequence's rows in order, by one thread: sums over rows are the same on any number of threads.
  parallel(static_cast<int64_t>(step.sequences.size()), threads, [&](int64_t i) {
    const SeenSequence& sequence = step.sequences[static_cast<size_t>(i)];
    for (const SeenRow& row : sequence.rows) kernels().see_row(step, layer, sequence, row);
  });
}

}  // namespace regard
