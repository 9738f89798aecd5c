// One decoding step over a part of one sequence: the query heads that share a key-value head walk its pages together.
//
//   for each piece of up to 256 tokens
//     s = scale · q·k, a page at a time, every head          [head][token]
//     m, c, e, l as in rowstate.h
//     o = c·o + Σ_t e_t v_t, a page at a time
//
// Pages are fetched TOKENS_AHEAD ahead, to the second cache, which takes more at once than the first: they lie
// anywhere, so the machine's own prefetching sees no pattern.
#pragma once
#include "paged.h"
#include "rowstate.h"
#include "widen.h"

namespace regard::REGARD_ISA {

constexpr int64_t TOKENS_AHEAD = 48;

REGARD_INLINE void fetch_to_second_cache(const void* at) { __builtin_prefetch(at, 0, 2); }

struct Piece {  // tokens begin … end-1, which are those of whole pages but at the ends of a sequence
  const Decode& call;
  int64_t sequence, group, begin, end;

  REGARD_INLINE int64_t first_page() const { return begin / call.page_size(); }
  REGARD_INLINE int64_t num_pages() const { return (end + call.page_size() - 1) / call.page_size() - first_page(); }
  REGARD_INLINE int64_t pages_ahead() const { return (TOKENS_AHEAD + call.page_size() - 1) / call.page_size(); }
  // The page'th page of the sequence, or the last there is.
  REGARD_INLINE int64_t at(int64_t page) const {
    const int64_t last = (*call.lengths.at<const int>(sequence, group) - 1) / call.page_size();
    return *call.block_table.at<const int>(sequence, group, page < last ? page : last);
  }
};

// scores[n][token in piece's pages] for N heads; query: [heads][Dk], already scaled.
template <int N, class Stored>
REGARD_STEP void score_pages(const Piece& piece, const float* query, float* scores) {
  const Decode& call = piece.call;
  const int64_t width = call.key_width(), size = call.page_size();
  for (int64_t page = 0; page < piece.num_pages(); ++page) {
    const Stored* keys = call.key_pages.at<const Stored>(piece.at(piece.first_page() + page), piece.group);
    const Stored* ahead =
        call.key_pages.at<const Stored>(piece.at(piece.first_page() + page + piece.pages_ahead()), piece.group);
    for (int64_t t = 0; t < size; t += W) {
      vf sum[N];
      for (int n = 0; n < N; ++n) sum[n] = zero();
      for (int64_t d = 0; d < width; ++d) {
        fetch_to_second_cache(ahead + d * size + t);
        const vf k = load_widened(keys + d * size + t);
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) sum[n] = fma(splat(query[n * width + d]), k, sum[n]);
      }
      for (int n = 0; n < N; ++n) store(scores + n * PIECE_TOKENS + page * size + t, sum[n]);
    }
  }
}

// out[n][d] += Σ_t e[n][t] v[t][d] for N heads and M vectors of d. Only tokens of the piece are read.
template <int N, int M, class Stored>
REGARD_STEP void mix_pages(const Piece& piece, const float* e, float* out, int64_t out_row, int64_t d) {
  const Decode& call = piece.call;
  const int64_t size = call.page_size(), width = call.value_width();
  vf sum[N][M];
#pragma GCC unroll 4
  for (int n = 0; n < N; ++n)
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) sum[n][m] = load(out + n * out_row + d + m * W);
  for (int64_t page = 0; page < piece.num_pages(); ++page) {
    const int64_t first = (piece.first_page() + page) * size;
    const int64_t from = piece.begin > first ? piece.begin - first : 0;
    const int64_t to = piece.end - first < size ? piece.end - first : size;
    const Stored* values = call.value_pages.at<const Stored>(piece.at(piece.first_page() + page), piece.group) + d;
    const Stored* ahead =
        call.value_pages.at<const Stored>(piece.at(piece.first_page() + page + piece.pages_ahead()), piece.group) + d;
    const float* weight = e + page * size;
    for (int64_t t = from; t < to; ++t) {
#pragma GCC unroll 4
      for (int m = 0; m < M; ++m) {
        fetch_to_second_cache(ahead + t * width + m * W);
        const vf v = load_widened(values + t * width + m * W);
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) sum[n][m] = fma(splat(weight[n * PIECE_TOKENS + t]), v, sum[n][m]);
      }
    }
  }
#pragma GCC unroll 4
  for (int n = 0; n < N; ++n)
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) store(out + n * out_row + d + m * W, sum[n][m]);
}

// The columns of a value that are no whole vector.
template <class Stored>
static void mix_rest(const Piece& piece, int heads, const float* e, float* out, int64_t out_row, int64_t d) {
  const Decode& call = piece.call;
  const int64_t size = call.page_size();
  for (int64_t token = piece.begin; token < piece.end; ++token) {
    const Stored* value = call.value_pages.at<const Stored>(piece.at(token / size), piece.group, token % size);
    for (int n = 0; n < heads; ++n)
      for (int64_t i = d; i < call.value_width(); ++i)
        out[n * out_row + i] += e[n * PIECE_TOKENS + token - piece.first_page() * size] * widened(value[i]);
  }
}

template <int N, class Stored>
static void mix_heads(const Piece& piece, const float* e, float* out, int64_t out_row) {
  int64_t d = 0;
  const int64_t width = piece.call.value_width();
  for (; d + 4 * W <= width; d += 4 * W) mix_pages<N, 4, Stored>(piece, e, out, out_row, d);
  for (; d + W <= width; d += W) mix_pages<N, 1, Stored>(piece, e, out, out_row, d);
  if (d < width) mix_rest<Stored>(piece, N, e, out, out_row, d);
}

struct HeadState {
  float m;   // maximum so far
  double l;  // Σ e
};

// scores -> e for one head of a piece; out is rescaled where the maximum rises.
static void absorb(const Piece& piece, float* scores, HeadState& state, float* out) {
  const int64_t before = piece.begin - piece.first_page() * piece.call.page_size();
  const int64_t count = piece.num_pages() * piece.call.page_size();
  for (int64_t t = 0; t < before; ++t) scores[t] = minus_infinity();
  for (int64_t t = before + piece.end - piece.begin; t < count; ++t) scores[t] = minus_infinity();
  vf best = splat(state.m), sum = zero();
  for (int64_t t = 0; t < count; t += W) best = max(load(scores + t), best);
  const float m = max_of(best);
  const float safe = m > minus_infinity() ? m : 0;
  for (int64_t t = 0; t < count; t += W) {
    const vf e = exponential(max(splat(LOWEST), load(scores + t) - splat(safe)));
    store(scores + t, e);
    sum = sum + e;
  }
  const float c = state.m > minus_infinity() ? exponential(max(splat(state.m - safe), splat(LOWEST)))[0] : 0;
  if (c != 1)
    for (int64_t d = 0; d < piece.call.value_width(); ++d) out[d] *= c;
  state.l = state.l * c + sum_of(sum);
  state.m = m;
}

// parts: per head m, l, o.
template <class Stored>
static void decode_stored(const Decode& call, int64_t sequence, int64_t group, int64_t begin, int64_t end,
                          float* parts) {
  Scratch& scratch = Scratch::mine();
  const int64_t shared = call.shared(), width = call.key_width(), floats = call.part_floats();
  float* query = scratch.floats(Scratch::query, static_cast<size_t>(shared * width));
  float* scores = scratch.floats(Scratch::scores, static_cast<size_t>(shared) * PIECE_TOKENS);
  HeadState* state = reinterpret_cast<HeadState*>(scratch.doubles(Scratch::state, static_cast<size_t>(2 * shared)));
  for (int64_t h = 0; h < shared; ++h) {
    const float* from = call.q.at<const float>(sequence, group * shared + h);
    for (int64_t d = 0; d < width; ++d) query[h * width + d] = from[d] * call.scale;
    state[h] = {minus_infinity(), 0};
    for (int64_t i = 0; i < floats; ++i) parts[h * floats + i] = 0;
  }
  for (int64_t at = begin; at < end;) {
    const int64_t stop = (at / PIECE_TOKENS + 1) * PIECE_TOKENS;
    const Piece piece{call, sequence, group, at, stop < end ? stop : end};
    for (int64_t h = 0; h < shared; h += 4) {
      float* s = scores + h * PIECE_TOKENS;
      float* out = parts + h * floats + 2;
      const int heads = static_cast<int>(shared - h < 4 ? shared - h : 4);
      switch (heads) {
        case 1: score_pages<1, Stored>(piece, query + h * width, s); break;
        case 2: score_pages<2, Stored>(piece, query + h * width, s); break;
        case 3: score_pages<3, Stored>(piece, query + h * width, s); break;
        default: score_pages<4, Stored>(piece, query + h * width, s);
      }
      for (int n = 0; n < heads; ++n) absorb(piece, s + n * PIECE_TOKENS, state[h + n], out + n * floats);
      switch (heads) {
        case 1: mix_heads<1, Stored>(piece, s, out, floats); break;
        case 2: mix_heads<2, Stored>(piece, s, out, floats); break;
        case 3: mix_heads<3, Stored>(piece, s, out, floats); break;
        default: mix_heads<4, Stored>(piece, s, out, floats);
      }
    }
    at = piece.end;
  }
  for (int64_t h = 0; h < shared; ++h) {
    parts[h * floats] = state[h].m;
    parts[h * floats + 1] = static_cast<float>(state[h].l);
  }
}

static void decode(const Decode& call, int64_t sequence, int64_t group, int64_t begin, int64_t end, float* parts) {
  const FlushTiny flush;
  switch (call.key_pages.type) {
    case Type::bf16: decode_stored<Bf16>(call, sequence, group, begin, end, parts); break;
    case Type::f16: decode_stored<F16>(call, sequence, group, begin, end, parts); break;
    default: decode_stored<float>(call, sequence, group, begin, end, parts);
  }
}

}  // namespace regard::REGARD_ISA
