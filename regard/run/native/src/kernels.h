// The kernels of one instruction set, and the choice among the sets that were compiled.
#pragma once
#include "choose.h"
#include "layer.h"
#include "packed.h"
#include "paged.h"
#include "seen.h"

namespace regard {

struct Kernels {
  const char* name;
  void (*attend)(const Call&, const Slab&);
  void (*backward)(const Call&, int64_t batch, int64_t head);
  void (*decode)(const Decode&, int64_t sequence, int64_t group, int64_t begin, int64_t end, float* parts);
  Products products;
  void (*rotate)(const Layer&, const Step&, const View& keys, const View& values, int64_t first, int64_t last);
  Passes passes;
  void (*see_row)(const SeenStep&, const SeenLayer&, const SeenSequence&, const SeenRow&);
};

extern const Kernels kernels_base;
#if defined(REGARD_X86)
extern const Kernels kernels_avx2, kernels_avx512;
#endif
#if defined(REGARD_AMX)
extern const Products products_amx;
#endif

// The widest set that this machine runs, or the one that REGARD_NATIVE_ISA names; throws if it cannot be had.
const Kernels& kernels();

}  // namespace regard
