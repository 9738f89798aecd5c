// Compiled once per instruction set; REGARD_ISA names the namespace and the table.
#include "backward.h"
#include "decode.h"
#include "kernels.h"
#include "linear.h"
#include "observe.h"
#include "passes.h"
#include "rotate.h"
#include "row_seen.h"

#define REGARD_JOIN(a, b) a##b
#define REGARD_TABLE(isa) REGARD_JOIN(kernels_, isa)
#define REGARD_TEXT(x) #x
#define REGARD_NAME(isa) REGARD_TEXT(isa)

namespace regard {

extern const Kernels REGARD_TABLE(REGARD_ISA);
const Kernels REGARD_TABLE(REGARD_ISA) = {
    REGARD_NAME(REGARD_ISA),
    REGARD_ISA::walk_slab,
    REGARD_ISA::backward,
    REGARD_ISA::decode,
    {REGARD_NAME(REGARD_ISA), REGARD_ISA::prepared_bytes, REGARD_ISA::prepare, REGARD_ISA::multiply},
    REGARD_ISA::rotate,
    {REGARD_ISA::maxima, REGARD_ISA::above, REGARD_ISA::sums},
    REGARD_ISA::see_row};

}  // namespace regard
