// Every kernel on several threads, from two callers at once, under the thread sanitizer (`make sanitize`): a race is
// reported and fails the run, and so does a result that differs by a bit from that of one thread.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <random>
#include <thread>
#include <vector>

#include "forward.h"
#include "kernels.h"

using namespace regard;

namespace {

constexpr int64_t HEADS = 4, GROUPS = 2, TOKENS = 300, WIDTH = 32, BINS = 8, TOP = 3, SHIFT = 4;
constexpr int64_t CELLS = (TOKENS + (1 << SHIFT) - 1) >> SHIFT, PAGE = 16, SEQUENCES = 3, OUTPUTS = 100, ROWS = 7;

template <class T>
View view(std::vector<T>& x, Type type, std::vector<int64_t> shape) {
  View found;
  found.address = reinterpret_cast<uintptr_t>(x.data());
  found.type = type;
  int64_t stride = 1;
  for (size_t i = shape.size(); i-- > 0; stride *= shape[i]) {
    found.shape[i] = shape[i];
    found.stride[i] = shape[i] == 1 ? 0 : stride;
  }
  return found;
}

std::vector<float> random(int64_t count, unsigned seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(static_cast<size_t>(count));
  for (float& value : x) value = normal(engine);
  return x;
}

template <class T>
void append(std::vector<char>& bytes, const std::vector<T>& x) {
  const char* begin = reinterpret_cast<const char*>(x.data());
  bytes.insert(bytes.end(), begin, begin + x.size() * sizeof(T));
}

// Causal attention with every statistic that sums over rows, then its gradients; all results as bytes.
std::vector<char> attention(int threads) {
  auto q = random(HEADS * TOKENS * WIDTH, 1), k = random(GROUPS * TOKENS * WIDTH, 2),
       v = random(GROUPS * TOKENS * WIDTH, 3);
  auto grad_out = random(HEADS * TOKENS * WIDTH, 4);
  std::vector<float> out(q.size()), row_max(HEADS * TOKENS), row_log_sum(HEADS * TOKENS), entropy(HEADS * TOKENS);
  std::vector<float> grad_q(q.size()), grad_k(q.size()), grad_v(q.size()), top(HEADS * TOKENS * TOP),
      most(HEADS * CELLS * CELLS);
  std::vector<int> top_keys(HEADS * TOKENS * TOP), start(TOKENS, 0), stop(TOKENS);
  std::vector<int64_t> positions(TOKENS);
  std::vector<double> mass(HEADS * TOKENS), bins(HEADS * BINS), cells(HEADS * CELLS * CELLS);
  for (int64_t i = 0; i < TOKENS; ++i) {
    positions[static_cast<size_t>(i)] = i;
    stop[static_cast<size_t>(i)] = static_cast<int>(i + 1);
  }
  Call call;
  call.q = view(q, Type::f32, {1, HEADS, TOKENS, WIDTH});
  call.k = view(k, Type::f32, {1, GROUPS, TOKENS, WIDTH});
  call.v = view(v, Type::f32, {1, GROUPS, TOKENS, WIDTH});
  call.out = view(out, Type::f32, {1, HEADS, TOKENS, WIDTH});
  call.row_max = view(row_max, Type::f32, {1, HEADS, TOKENS});
  call.row_log_sum = view(row_log_sum, Type::f32, {1, HEADS, TOKENS});
  call.query_positions = call.key_positions = view(positions, Type::i64, {1, TOKENS});
  call.start = view(start, Type::i32, {1, 1, TOKENS, 1});
  call.stop = view(stop, Type::i32, {1, 1, TOKENS, 1});
  call.scale = 0.2f;
  std::vector<Statistic> statistics(5);
  statistics[0] = {Statistic::entropy, 0, 0, 0, 0, {}, {}, view(entropy, Type::f32, {1, HEADS, TOKENS}), {}};
  statistics[1] = {Statistic::column_mass, 0, 0, 0, 0, {}, {}, view(mass, Type::f64, {1, HEADS, TOKENS}), {}};
  statistics[2] = {Statistic::histogram, BINS, 0, 0, 0, {}, {}, view(bins, Type::f64, {1, HEADS, BINS}), {}};
  statistics[3] = {Statistic::topk,
                   TOP,
                   0,
                   0,
                   0,
                   {},
                   {},
                   view(top, Type::f32, {1, HEADS, TOKENS, TOP}),
                   view(top_keys, Type::i32, {1, HEADS, TOKENS, TOP})};
  statistics[4] = {Statistic::pool,
                   0,
                   SHIFT,
                   SHIFT,
                   0,
                   {},
                   {},
                   view(cells, Type::f64, {1, HEADS, CELLS, CELLS}),
                   view(most, Type::f32, {1, HEADS, CELLS, CELLS})};
  call.statistics = statistics.data();
  call.num_statistics = static_cast<int>(statistics.size());
  forward({call}, threads);
  call.num_statistics = 0;
  call.grad_out = view(grad_out, Type::f32, {1, HEADS, TOKENS, WIDTH});
  call.grad_q = view(grad_q, Type::f32, {1, HEADS, TOKENS, WIDTH});
  call.grad_k = view(grad_k, Type::f32, {1, HEADS, TOKENS, WIDTH});
  call.grad_v = view(grad_v, Type::f32, {1, HEADS, TOKENS, WIDTH});
  backward(call, threads);
  std::vector<char> bytes;
  for (const auto* x : {&out, &row_max, &row_log_sum, &entropy, &top, &most, &grad_q, &grad_k, &grad_v})
    append(bytes, *x);
  for (const auto* x : {&mass, &bins, &cells}) append(bytes, *x);
  append(bytes, top_keys);
  return bytes;
}

// One decoding step over pages, long enough to be split.
std::vector<char> decoding(int threads) {
  const int64_t pages = 300;
  auto q = random(SEQUENCES * HEADS * WIDTH, 5), keys = random(pages * GROUPS * WIDTH * PAGE, 6);
  auto values = random(pages * GROUPS * WIDTH * PAGE, 7);
  std::vector<float> out(q.size()), row_max(SEQUENCES * HEADS), row_log_sum(SEQUENCES * HEADS);
  std::vector<int> table(static_cast<size_t>(SEQUENCES * pages)), lengths = {4500, 17, 1};
  for (size_t i = 0; i < table.size(); ++i) table[i] = static_cast<int>(i * 7 % pages);
  Decode call;
  call.q = view(q, Type::f32, {SEQUENCES, HEADS, WIDTH});
  call.out = view(out, Type::f32, {SEQUENCES, HEADS, WIDTH});
  call.row_max = view(row_max, Type::f32, {SEQUENCES, HEADS});
  call.row_log_sum = view(row_log_sum, Type::f32, {SEQUENCES, HEADS});
  call.key_pages = view(keys, Type::f32, {pages, GROUPS, WIDTH, PAGE});
  call.value_pages = view(values, Type::f32, {pages, GROUPS, PAGE, WIDTH});
  call.block_table = view(table, Type::i32, {SEQUENCES, 1, pages});
  call.block_table.stride[1] = 0;  // one table for all key-value heads
  call.lengths = view(lengths, Type::i32, {SEQUENCES});
  decode(call, threads);
  std::vector<char> bytes;
  for (const auto* x : {&out, &row_max, &row_log_sum}) append(bytes, *x);
  return bytes;
}

std::vector<char> product(int threads) {
  auto x = random(ROWS * WIDTH, 8), weights = random((OUTPUTS + PANEL - 1) / PANEL * PANEL * WIDTH, 9);
  std::vector<float> y(ROWS * OUTPUTS);
  multiply_packed({weights.data(), Stored::f32, nullptr, nullptr, WIDTH, OUTPUTS}, {x.data(), WIDTH, ROWS, WIDTH},
                  y.data(), OUTPUTS, Into::store, threads);
  std::vector<char> bytes;
  append(bytes, y);
  return bytes;
}

}  // namespace

int main() {
  const std::vector<std::function<std::vector<char>(int)>> kinds = {attention, decoding, product};
  std::vector<std::vector<char>> alone;
  for (const auto& kind : kinds) alone.push_back(kind(1));
  int wrong = 0;
  auto caller = [&](int* failures) {
    for (int round = 0; round < 5; ++round)
      for (size_t i = 0; i < kinds.size(); ++i) *failures += kinds[i](3) != alone[i];
  };
  int failures[2] = {0, 0};
  std::thread other(caller, &failures[1]);
  caller(&failures[0]);
  other.join();
  wrong = failures[0] + failures[1];
  std::printf(wrong ? "%d results differ from those of one thread\n" : "no result differs from those of one thread\n",
              wrong);
  return wrong != 0;
}
