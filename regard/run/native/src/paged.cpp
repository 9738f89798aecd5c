#include "paged.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels.h"
#include "pool.h"

namespace regard {
namespace {

struct Part {  // the tokens begin … end-1 of one sequence and key-value head
  int64_t sequence, group, begin, end;
};

// out = Σ over parts of e^(m_p - m) o_p / L, in the order of the parts.
void join(const Decode& call, int64_t sequence, int64_t head, const float* parts, int64_t count, int64_t stride) {
  float m = -std::numeric_limits<float>::infinity();
  for (int64_t p = 0; p < count; ++p) m = std::max(m, parts[p * stride]);
  float* out = call.out.at<float>(sequence, head);
  const int64_t width = call.value_width();
  std::fill(out, out + width, 0.f);
  if (call.row_max) *call.row_max.at<float>(sequence, head) = m;
  if (call.row_max) *call.row_log_sum.at<float>(sequence, head) = 0;
  if (m == -std::numeric_limits<float>::infinity()) return;
  double total = 0;
  for (int64_t p = 0; p < count; ++p) total += std::exp(double{parts[p * stride]} - m) * parts[p * stride + 1];
  double log_total = std::log(total);
  if (call.sink) {
    const double x = double{*call.sink.at<float>(head)} - m;
    const double larger = std::max(x, log_total), smaller = std::min(x, log_total);
    log_total = larger + std::log1p(std::exp(smaller - larger));
  }
  if (call.row_max) *call.row_log_sum.at<float>(sequence, head) = static_cast<float>(log_total);
  for (int64_t p = 0; p < count; ++p) {
    const float factor = static_cast<float>(std::exp(double{parts[p * stride]} - m - log_total));
    const float* from = parts + p * stride + 2;
    for (int64_t d = 0; d < width; ++d) out[d] += factor * from[d];
  }
}

}  // namespace

void check_table(const View& block_table, const View& lengths, int64_t page_size, int64_t num_pages) {
  for (int64_t s = 0; s < lengths.shape[0]; ++s)
    for (int64_t g = 0; g < block_table.shape[1]; ++g)
      for (int64_t page = 0, length = *lengths.at<int>(s, g); page * page_size < length; ++page) {
        const int64_t named = *block_table.at<int>(s, g, page);
        if (named < 0 || named >= num_pages)
          throw std::invalid_argument("block_table names page " + std::to_string(named) + " of " +
                                      std::to_string(num_pages) + " for sequence " + std::to_string(s));
      }
}

void decode(const Decode& call, int threads) {
  check_table(call.block_table, call.lengths, call.page_size(), call.key_pages.shape[0]);
  const int64_t units = call.sequences() * call.groups(), shared = call.shared(), floats = call.part_floats();
  std::vector<Part> parts;
  std::vector<int64_t> first_part(static_cast<size_t>(units + 1), 0);
  for (int64_t s = 0; s < call.sequences(); ++s) {
    for (int64_t g = 0; g < call.groups(); ++g) {
      const int64_t length = *call.lengths.at<int>(s, g), start = call.starts ? *call.starts.at<int>(s, g) : 0;
      int64_t cut = start / SPLIT_TOKENS * SPLIT_TOKENS;
      do {  // at least one, so that an empty sequence is written too
        parts.push_back({s, g, std::max(cut, start), std::min(cut + SPLIT_TOKENS, length)});
        cut += SPLIT_TOKENS;
      } while (cut < length);
      first_part[static_cast<size_t>(s * call.groups() + g + 1)] = static_cast<int64_t>(parts.size());
    }
  }
  std::vector<std::atomic<int64_t>> left(static_cast<size_t>(units));
  for (size_t unit = 0; unit < left.size(); ++unit) left[unit] = first_part[unit + 1] - first_part[unit];
  std::vector<float> found(parts.size() * static_cast<size_t>(shared * floats));
  parallel(static_cast<int64_t>(parts.size()), threads, [&](int64_t task) {
    const Part& part = parts[static_cast<size_t>(task)];
    kernels().decode(call, part.sequence, part.group, part.begin, part.end, found.data() + task * shared * floats);
    const size_t unit = static_cast<size_t>(part.sequence * call.groups() + part.group);
    if (left[unit].fetch_sub(1) != 1) return;
    const int64_t first = first_part[unit], count = first_part[unit + 1] - first;  // the last part joins them all
    for (int64_t h = 0; h < shared; ++h)
      join(call, part.sequence, part.group * shared + h, found.data() + (first * shared + h) * floats, count,
           shared * floats);
  });
}

namespace {

template <class Stored>
void write(const View& k, const View& v, const View& slots, const View& key_pages, const View& value_pages) {
  const int64_t tokens = k.shape[0], groups = key_pages.shape[1], key_width = key_pages.shape[2];
  const int64_t page_size = key_pages.shape[3], value_width = value_pages.shape[3];
  for (int64_t t = 0; t < tokens; ++t) {
    const int64_t slot = *slots.at<int64_t>(t), page = slot / page_size, place = slot % page_size;
    for (int64_t g = 0; g < groups; ++g) {
      const Stored* key = k.at<Stored>(t, g);
      Stored* to = key_pages.at<Stored>(page, g, 0, place);
      for (int64_t d = 0; d < key_width; ++d) to[d * page_size] = key[d];
      std::memcpy(value_pages.at<Stored>(page, g, place), v.at<Stored>(t, g),
                  sizeof(Stored) * static_cast<size_t>(value_width));
    }
  }
}

}  // namespace

void write_pages(const View& k, const View& v, const View& slots, const View& key_pages, const View& value_pages) {
  if (key_pages.type == Type::f32) {
    write<uint32_t>(k, v, slots, key_pages, value_pages);
  } else {
    write<uint16_t>(k, v, slots, key_pages, value_pages);
  }
}

}  // namespace regard
