// Products by the matrix unit, for machines that have one.
#include "amx.h"
#include "kernels.h"

namespace regard {

extern const Products products_amx;
const Products products_amx = {"amx", amx::prepared_tiles, amx::prepare_tiles, amx::multiply_tiles};

}  // namespace regard
