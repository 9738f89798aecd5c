#include "memory.h"

#include <algorithm>
#include <vector>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "pool.h"

namespace regard {

bool advise_huge(uintptr_t address, size_t bytes) {
#if defined(__linux__)
  constexpr uintptr_t page = 4096;
  const uintptr_t begin = (address + page - 1) / page * page, end = (address + bytes) / page * page;
  return end > begin && madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE) == 0;
#else
  (void)address;
  (void)bytes;
  return false;
#endif
}

double read_floats(const float* from, int64_t count, int threads) {
  constexpr int64_t PART = 1 << 18, LANES = 32;
  const int64_t parts = (count + PART - 1) / PART;
  std::vector<double> sums(static_cast<size_t>(parts));
  parallel(parts, threads, [&](int64_t part) {
    const float* at = from + part * PART;
    const int64_t length = std::min(PART, count - part * PART);
    float lanes[LANES] = {};
    int64_t i = 0;
    for (; i + LANES <= length; i += LANES)
      for (int lane = 0; lane < LANES; ++lane) lanes[lane] += at[i + lane];
    for (; i < length; ++i) lanes[0] += at[i];
    double sum = 0;
    for (float lane : lanes) sum += lane;
    sums[static_cast<size_t>(part)] = sum;
  });
  double total = 0;
  for (double sum : sums) total += sum;
  return total;
}

}  // namespace regard
