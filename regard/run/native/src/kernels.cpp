#include "kernels.h"

#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#include "machine.h"

namespace regard {
namespace {

const Kernels& choose() {
  const Kernels* found[] = {&kernels_base, nullptr, nullptr};
#if defined(REGARD_X86)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (avx2) found[1] = &kernels_avx2;
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
    found[2] = &kernels_avx512;
#endif
  const char* asked = std::getenv("REGARD_NATIVE_ISA");
  if (asked != nullptr && *asked != 0) {
    const char* vectors = std::strcmp(asked, "amx") == 0 && has_matrix_unit() ? "avx512" : asked;
    for (const Kernels* set : found)
      if (set != nullptr && std::strcmp(set->name, vectors) == 0) return *set;
    throw std::runtime_error(std::string("REGARD_NATIVE_ISA=") + asked +
                             " cannot be had here; use base, avx2, avx512 or amx, as far as the machine runs it");
  }
  for (int i = 2; i > 0; --i)
    if (found[i] != nullptr) return *found[i];
  return *found[0];
}

const Products& choose_products() {
#if defined(REGARD_AMX)
  const char* asked = std::getenv("REGARD_NATIVE_ISA");
  const bool any = asked == nullptr || *asked == 0 || std::strcmp(asked, "amx") == 0;
  if (any && std::strcmp(kernels().name, "avx512") == 0 && has_matrix_unit()) return products_amx;
#endif
  return kernels().products;
}

}  // namespace

const Products& products() {
  static const Products& chosen = choose_products();
  return chosen;
}

const Kernels& kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

}  // namespace regard
