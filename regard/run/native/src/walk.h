// Which keys a block of rows reads, and in what pieces.
//
// Keys are walked in chunks anchored at multiples of CHUNK, whatever the rows around, so a row's arithmetic depends
// on nothing but itself. Within a chunk only the runs that some row of the block sees are read, side by side
// ("compact"): a key that nobody sees is never touched.
#pragma once
#include <vector>

#include "call.h"

namespace regard {

constexpr int CHUNK = 96;      // keys
constexpr int BLOCK_ROWS = 64;

struct Block {  // rows that are computed together, one per lane
  int64_t batch, group;
  int rows;
  bool one_head;
  int head[BLOCK_ROWS];
  int64_t query[BLOCK_ROWS];
};

struct Run {
  int key, length, place;  // place: offset among the chunk's compact keys
};

struct Chunk {
  int first_run, num_runs;
  int count;              // compact keys
  int64_t place;          // compact keys of the chunks before
  int begin, end;         // hull of its keys
};

class Walk {
 public:
  Walk();
  ~Walk();
  Walk(const Walk&) = delete;
  void plan(const Call& call, const Block& block);

  const Run* runs = nullptr;
  const Chunk* chunks = nullptr;
  int num_chunks = 0;
  int64_t total = 0;  // compact keys

 private:
  std::vector<Run> all_runs_, joined_;
  std::vector<Chunk> all_chunks_;
};

}  // namespace regard
