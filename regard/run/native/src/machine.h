// What this machine can do beyond its vectors.
#pragma once

namespace regard {

// Whether the matrix unit (AMX, bfloat16 and int8) is there and the system lets this process use it.
bool has_matrix_unit();

}  // namespace regard
