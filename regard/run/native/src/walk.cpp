#include "walk.h"

#include <algorithm>

namespace regard {

Walk::Walk() = default;
Walk::~Walk() = default;

void Walk::plan(const Call& call, const Block& block) {
  all_runs_.clear();
  all_chunks_.clear();
  joined_.clear();
  total = 0;
  const int64_t intervals = call.start.shape[3], keys = call.keys();
  // The union of all rows' intervals. Neighbouring rows mostly repeat one another: extend the last one if it fits.
  for (int row = 0; row < block.rows; ++row) {
    for (int64_t r = 0; r < intervals; ++r) {
      const int64_t begin =
          std::max<int64_t>(0, *call.start.at<const int>(block.batch, block.head[row], block.query[row], r));
      const int64_t end =
          std::min(keys, int64_t{*call.stop.at<const int>(block.batch, block.head[row], block.query[row], r)});
      if (end <= begin) continue;
      if (!joined_.empty()) {
        Run& last = joined_.back();
        const int64_t last_end = int64_t{last.key} + last.length;
        if (begin <= last_end && end >= last.key) {
          const int64_t low = std::min<int64_t>(last.key, begin);
          last.length = static_cast<int>(std::max(last_end, end) - low);
          last.key = static_cast<int>(low);
          continue;
        }
      }
      joined_.push_back({static_cast<int>(begin), static_cast<int>(end - begin), 0});
    }
  }
  std::sort(joined_.begin(), joined_.end(), [](const Run& a, const Run& b) { return a.key < b.key; });
  size_t kept = 0;
  for (const Run& run : joined_) {
    if (kept > 0 && run.key <= joined_[kept - 1].key + joined_[kept - 1].length) {
      Run& last = joined_[kept - 1];
      last.length = std::max(last.length, run.key + run.length - last.key);
    } else {
      joined_[kept++] = run;
    }
  }
  // Cut at the anchors.
  for (size_t i = 0; i < kept; ++i) {
    for (int key = joined_[i].key, end = key + joined_[i].length; key < end;) {
      const int stop = static_cast<int>(std::min<int64_t>(end, (int64_t{key} / CHUNK + 1) * CHUNK));
      if (all_chunks_.empty() || all_chunks_.back().begin / CHUNK != key / CHUNK)
        all_chunks_.push_back({static_cast<int>(all_runs_.size()), 0, 0, total, key, stop});
      Chunk& chunk = all_chunks_.back();
      all_runs_.push_back({key, stop - key, chunk.count});
      ++chunk.num_runs;
      chunk.count += stop - key;
      chunk.end = stop;
      total += stop - key;
      key = stop;
    }
  }
  runs = all_runs_.data();
  chunks = all_chunks_.data();
  num_chunks = static_cast<int>(all_chunks_.size());
}

}  // namespace regard
