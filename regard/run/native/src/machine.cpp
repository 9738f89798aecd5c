#include "machine.h"

#if defined(REGARD_AMX)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace regard {

bool has_matrix_unit() {
#if defined(REGARD_AMX)
  unsigned a = 0, b = 0, c = 0, d = 0, amx_bf16 = 1u << 22, amx_tile = 1u << 24, amx_int8 = 1u << 25, bf16 = 1u << 5;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  if ((d & amx_bf16) == 0 || (d & amx_tile) == 0 || (d & amx_int8) == 0) return false;
  if (!__get_cpuid_count(7, 1, &a, &b, &c, &d) || (a & bf16) == 0) return false;
  constexpr long REQUEST = 0x1023, TILE_DATA = 18;  // arch_prctl(ARCH_REQ_XCOMP_PERM): Linux 5.16
  return syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
#else
  return false;
#endif
}

}  // namespace regard
