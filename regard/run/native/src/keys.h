// Keys and values of a run of slots as float32, wherever they lie: rows of a dense tensor as they are, half precision
// widened, pages gathered. What is copied is one run, at most CHUNK tokens, into the thread's scratch.
#pragma once
#include "scratch.h"
#include "walk.h"
#include "widen.h"

namespace regard::REGARD_ISA {

// Calls f(page, first token in it, count, place in the run) for every page that holds a part of the run.
template <class F>
REGARD_INLINE void over_pages(const Call& call, int64_t sequence, int64_t group, const Run& run, int64_t size, F&& f) {
  for (int64_t done = 0; done < run.length;) {
    const int64_t slot = run.key + done, place = slot % size;
    const int64_t count = run.length - done < size - place ? run.length - done : size - place;
    f(*call.block_table.at<const int>(sequence, group, slot / size), place, count, done);
    done += count;
  }
}

// key_pages [pages,G,Dk,size] -> room[d][token]: a page already holds a feature of all its tokens side by side.
REGARD_STEP Operand gather_keys(const Call& call, int64_t sequence, int64_t group, const Run& run, float* room) {
  const int64_t width = call.key_width(), size = call.k.shape[3];
  over_pages(call, sequence, group, run, size, [&](int64_t page, int64_t place, int64_t count, int64_t done) {
    const char* from = bytes_at(call.k, page, group, 0) + place * size_of(call.k.type);
    for (int64_t d = 0; d < width; ++d, from += size * size_of(call.k.type))
      widen(from, call.k.type, count, room + d * CHUNK + done);
  });
  return {room, 1, CHUNK};
}

// value_pages [pages,G,size,Dv] -> room[token][d].
REGARD_STEP Operand gather_values(const Call& call, int64_t sequence, int64_t group, const Run& run, float* room) {
  const int64_t width = call.value_width(), size = call.v.shape[2];
  over_pages(call, sequence, group, run, size, [&](int64_t page, int64_t place, int64_t count, int64_t done) {
    widen(bytes_at(call.v, page, group, place), call.v.type, count * width, room + done * width);
  });
  return {room, width, 1};
}

REGARD_INLINE Operand keys_of(const Call& call, Scratch& scratch, const Block& block, const Run& run) {
  const int64_t width = call.key_width();
  const bool as_they_lie = call.k.type == Type::f32 && !call.block_table;
  float* room = as_they_lie ? nullptr : scratch.floats(Scratch::keys, CHUNK * static_cast<size_t>(width));
  return call.block_table ? gather_keys(call, block.batch, block.group, run, room)
                          : float_rows(call.k, block.batch, block.group, run.key, run.length, width, room);
}

REGARD_INLINE Operand values_of(const Call& call, Scratch& scratch, const Block& block, const Run& run) {
  const int64_t width = call.value_width();
  const bool as_they_lie = call.v.type == Type::f32 && !call.block_table;
  float* room = as_they_lie ? nullptr : scratch.floats(Scratch::values, CHUNK * static_cast<size_t>(width));
  return call.block_table ? gather_values(call, block.batch, block.group, run, room)
                          : float_rows(call.v, block.batch, block.group, run.key, run.length, width, room);
}

}  // namespace regard::REGARD_ISA
