// Compiled once per instruction set; REGARD_ISA names the namespace and the table.
#include "backward.h"
#include "kernels.h"

#define REGARD_JOIN(a, b) a##b
#define REGARD_TABLE(isa) REGARD_JOIN(kernels_, isa)
#define REGARD_TEXT(x) #x
#define REGARD_NAME(isa) REGARD_TEXT(isa)

namespace regard {

extern const Kernels REGARD_TABLE(REGARD_ISA);
const Kernels REGARD_TABLE(REGARD_ISA) = {REGARD_NAME(REGARD_ISA), REGARD_ISA::attend, REGARD_ISA::backward};

}  // namespace regard
