// Paged keys and values, and what one decoding step asks: one query per sequence and head.
//
// A page holds page_size tokens of one key-value head: keys [Dk][page_size], so that one load takes a feature of
// many tokens, values [page_size][Dv]. pages: keys [pages, G, Dk, page_size], values [pages, G, page_size, Dv].
#pragma once
#include "call.h"

namespace regard {

constexpr int64_t SPLIT_TOKENS = 2048;  // a sequence is cut here, whatever the batch and the threads
constexpr int PIECE_TOKENS = 256;       // walked together; a multiple of any page size up to it

struct Decode {
  View q, out;                 // f32 [S,H,Dk], [S,H,Dv]
  View row_max, row_log_sum;   // f32 [S,H]
  View key_pages, value_pages; // f32, bf16 or f16, both the same
  View block_table, lengths;   // i32 [S,G,pages], [S,G]; strides 0 where all heads share one
  View starts;                 // i32 [S,G]: the first visible token, or absent
  View sink;                   // f32 [H] or absent
  float scale = 1;

  REGARD_INLINE int64_t sequences() const { return q.shape[0]; }
  REGARD_INLINE int64_t heads() const { return q.shape[1]; }
  REGARD_INLINE int64_t groups() const { return key_pages.shape[1]; }
  REGARD_INLINE int64_t shared() const { return heads() / groups(); }
  REGARD_INLINE int64_t key_width() const { return key_pages.shape[2]; }
  REGARD_INLINE int64_t page_size() const { return key_pages.shape[3]; }
  REGARD_INLINE int64_t value_width() const { return value_pages.shape[3]; }
  REGARD_INLINE int64_t part_floats() const { return 2 + value_width(); }  // m, l, then Σ e·v
};

// Throws std::invalid_argument where a page that would be read does not exist.
void check_table(const View& block_table, const View& lengths, int64_t page_size, int64_t num_pages);

void decode(const Decode& call, int threads);

// Puts tokens into pages of their type: k [T,G,Dk], v [T,G,Dv]; slots i64 [T], page · page_size + place.
void write_pages(const View& k, const View& v, const View& slots, const View& key_pages, const View& value_pages);

}  // namespace regard
