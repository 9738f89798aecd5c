// One attention call over all its rows: cut into slabs, walked on several threads, sums over rows merged in order.
#pragma once
#include "call.h"

namespace regard {

void forward(const Call& call, int threads);

}  // namespace regard
