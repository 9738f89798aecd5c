// Attention calls over all their rows: cut into slabs, walked on several threads, sums over rows merged in order.
#pragma once
#include <vector>

#include "call.h"

namespace regard {

// Several independent calls in one parallel region.
void forward(const std::vector<Call>& calls, int threads);

// One call whose tokens are documents side by side (batch 1): each is a call of its own, on a part of every array.
// Histograms are [documents, H, bins]; a map is of one document alone.
struct Documents {
  std::vector<int64_t> cu_query, cu_key;  // document s: queries cu_query[s] … cu_query[s+1]-1, keys likewise
  std::vector<int64_t> walked;            // the documents to compute; the others' results are left as they are
};

void forward_ragged(const Call& packed, const Documents& documents, int threads);

// Gradients of one call; each head is one task.
void backward(const Call& call, int threads);

}  // namespace regard
