// What one call asks for: plain records that the bindings fill and every kernel reads. Compiled once per instruction
// set, so inline functions are forced inline: no shared symbol may carry instructions that the machine lacks.
#pragma once
#include <cstdint>

#define REGARD_INLINE [[gnu::always_inline]] inline
#define REGARD_STEP [[gnu::noinline]] static  // a step of a loop over chunks: one symbol each, so profiles can be read

namespace regard {

enum class Type : int { f32 = 0, bf16 = 1, f16 = 2, i32 = 3, i64 = 4, f64 = 5, u8 = 6 };

// A strided array of up to four dimensions; strides in elements, 0 where one slice serves all. Absent: address 0.
struct View {
  uintptr_t address = 0;
  Type type = Type::f32;
  int64_t shape[4] = {1, 1, 1, 1};
  int64_t stride[4] = {0, 0, 0, 0};

  REGARD_INLINE explicit operator bool() const { return address != 0; }
  REGARD_INLINE int64_t offset(int64_t a, int64_t b = 0, int64_t c = 0, int64_t d = 0) const {
    return a * stride[0] + b * stride[1] + c * stride[2] + d * stride[3];
  }
  template <class T>
  REGARD_INLINE T* at(int64_t a, int64_t b = 0, int64_t c = 0, int64_t d = 0) const {
    return reinterpret_cast<T*>(address) + offset(a, b, c, d);
  }
};

// Score terms after the first dot product, in order (core.py says what each means).
struct Term {
  enum Kind : int { key_bias = 0, slope = 1, distance = 2, table = 3, softcap = 4 };
  Kind kind = key_bias;
  float number = 0;
  View tensor;
};

struct Statistic {
  enum Kind : int { entropy = 0, max, sum, match, distance, topk, column_mass, histogram, pool };
  Kind kind = entropy;
  int64_t size = 0;  // topk: k; histogram: bins
  int query_shift = 0, key_shift = 0;
  int64_t query_offset = 0;
  View first, second;  // sum: feature [B,Tk]; match: query and key labels [B,Tq], [B,Tk]
  View result, second_result;  // as core.py documents them, contiguous
};

struct Call {
  View q, k, v, out;  // [B,H,Tq,Dk], [B,G,Tk,Dk], [B,G,Tk,Dv], [B,H,Tq,Dv]; out absent: observe only
  // If present, i32 [B,G,pages], k and v are pages: [pages,G,Dk,size] and [pages,G,size,Dv], and num_slots is Tk.
  View block_table;
  int64_t num_slots = 0;
  View row_max, row_log_sum;  // f32 [B,H,Tq], or absent
  View query_positions, key_positions;  // i64 [B,Tq], [B,Tk]
  View start, stop;  // i32 [B,H,Tq,R], strides 0 where shared
  View head_scale, sink;  // f32 [H] or absent
  float scale = 1;
  View key_scale, counted;  // f32 [B,H,Tk], u8 [B,Tq], or absent
  const Term* terms = nullptr;
  int num_terms = 0;
  const Statistic* statistics = nullptr;
  int num_statistics = 0;

  // Backward: the gradient of out, and where gradients go: float32, contiguous, per query head, zeroed; those of keys
  // and values have rows of a multiple of 16 numbers.
  View grad_out, grad_q, grad_k, grad_v;

  REGARD_INLINE int64_t batch() const { return q.shape[0]; }
  REGARD_INLINE int64_t heads() const { return q.shape[1]; }
  REGARD_INLINE int64_t queries() const { return q.shape[2]; }
  REGARD_INLINE int64_t groups() const { return k.shape[1]; }
  REGARD_INLINE int64_t keys() const { return block_table ? num_slots : k.shape[2]; }
  REGARD_INLINE int64_t key_width() const { return q.shape[3]; }
  REGARD_INLINE int64_t value_width() const { return out ? out.shape[3] : 0; }
};

// Rows that one thread walks in order, and where it adds what it reduces over rows.
struct Columns {  // one head's sums over rows
  double* mass = nullptr;  // [Tk]
  double* histogram = nullptr;  // [bins]
  double* pool_sum = nullptr;  // [row cells, key cells]
  float* pool_max = nullptr;
};

struct Slab {
  int64_t batch, first_head, num_heads;  // several heads only where each has few rows; they share a key-value head
  int64_t begin, end;  // query rows
  Columns* columns;  // one per head, or null
};

}  // namespace regard
