// A decoder layer as Llama has it, but for its attention, over the rows of one step:
//
//   q, k, v = W_qkv · norm(h),  q and k turned by their positions, k and v put into pages        (before)
//   h += W_o · attention,  h += W_down · (silu(W_gate · norm(h)) ∘ (W_up · norm(h)))            (after)
#pragma once
#include "packed.h"

namespace regard {

struct Layer {
  Weights joined, out, gated, down;  // q k v; o; gate and up, 16 and 16 in turn; down
  const float *attention_gain = nullptr, *feed_gain = nullptr;  // [hidden]
  const float *query_gain = nullptr, *key_gain = nullptr;       // [key_width], or null
  float eps = 0;
  int64_t heads = 0, groups = 0, key_width = 0, value_width = 0;
};

struct Step {
  int64_t rows = 0;
  float *hidden = nullptr, *joined = nullptr, *attended = nullptr, *between = nullptr;  // [rows, …]
  int64_t joined_row = 0;
  const float *cos = nullptr, *sin = nullptr;  // [rows, key_width]
  const int64_t* slots = nullptr;              // [rows]: page · page_size + the token's place in it
};

void before_attention(const Layer& layer, const Step& step, const View& key_pages, const View& value_pages,
                      int threads);
void after_attention(const Layer& layer, const Step& step, int threads);

}  // namespace regard
