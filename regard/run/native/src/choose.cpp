#include "choose.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "kernels.h"
#include "pool.h"
#include "scratch.h"

namespace regard {
namespace {

constexpr float LEAST = -std::numeric_limits<float>::infinity();

// A row, the largest of each group of it, and the largest of all.
struct Look {
  const float* x;
  int64_t count;
  std::vector<float> groups;
  float most;

  Look(const float* row, int64_t length)
      : x(row), count(length), groups(static_cast<size_t>((length + GROUP - 1) / GROUP)) {
    kernels().passes.maxima(x, count, groups.data());
    most = *std::max_element(groups.begin(), groups.end());
  }

  int64_t best() const {  // the first of the largest
    for (size_t g = 0; g < groups.size(); ++g)
      if (groups[g] == most)
        for (int64_t i = static_cast<int64_t>(g) * GROUP; i < count; ++i)
          if (x[i] == most) return i;
    return 0;
  }

  // A number that at least `wanted` logits reach: as many groups have a largest that does.
  float reached_by(int64_t wanted) const {
    if (wanted > static_cast<int64_t>(groups.size())) return LEAST;
    std::vector<float> ordered = groups;
    std::nth_element(ordered.begin(), ordered.begin() + (wanted - 1), ordered.end(), std::greater<float>());
    return ordered[static_cast<size_t>(wanted - 1)];
  }

  // Indices of the logits that reach it, the largest first, of equals the lower index first.
  std::vector<int> reaching(float least) const {
    int* room = Scratch::mine().ints(Scratch::labels, static_cast<size_t>(count));
    std::vector<int> found(room, room + kernels().passes.above(x, count, least, room));
    std::sort(found.begin(), found.end(), [this](int a, int b) { return x[a] != x[b] ? x[a] > x[b] : a < b; });
    return found;
  }
};

// The token at `number` of the weights in this order; those after `kept` are left out.
int64_t at_number(const std::vector<int>& order, const std::vector<double>& weights, size_t kept, double number) {
  double total = 0, sum = 0;
  size_t last = 0;
  for (size_t i = 0; i < kept; ++i) {
    total += weights[i];
    if (weights[i] > 0) last = i;
  }
  for (size_t i = 0; i < kept; ++i) {
    sum += weights[i];
    if (sum > number * total) return order[std::min(i, last)];
  }
  return order[last];
}

// No filter: tokens in their own order.
int64_t draw_from_all(const Look& look, const Draw& draw) {
  std::vector<double> blocks(static_cast<size_t>((look.count + BLOCK - 1) / BLOCK));
  kernels().passes.sums(look.x, look.count, look.most, static_cast<float>(1 / draw.temperature), blocks.data());
  double total = 0, sum = 0;
  for (double block : blocks) total += block;
  const double most = look.most / draw.temperature, wanted = draw.number * total;
  int64_t likely = 0;
  for (size_t b = 0; b < blocks.size(); ++b) {
    if (sum + blocks[b] <= wanted && b + 1 < blocks.size()) {
      sum += blocks[b];
      continue;
    }
    const int64_t end = std::min(look.count, static_cast<int64_t>(b + 1) * BLOCK);
    for (int64_t i = static_cast<int64_t>(b) * BLOCK; i < end; ++i) {
      const double e = std::exp(look.x[i] / draw.temperature - most);
      sum += e;
      if (e > 0) likely = i;
      if (sum > wanted) return i;
    }
  }
  return likely;
}

double total_of(const Look& look, const Draw& draw) {
  std::vector<double> blocks(static_cast<size_t>((look.count + BLOCK - 1) / BLOCK));
  kernels().passes.sums(look.x, look.count, look.most, static_cast<float>(1 / draw.temperature), blocks.data());
  double total = 0;
  for (double block : blocks) total += block;
  return total;
}

// A number above which the logits have at least `mass` of Σ e^((x - most) / temperature), found by counting how many
// lie how far below the largest; LEAST where that does not say.
float reached_by_mass(const Look& look, const Draw& draw, double mass) {
  constexpr int STEPS = 4096;
  constexpr double STEP = 0.005;
  std::vector<int> steps(STEPS + 1, 0);
  const float scale = static_cast<float>(1 / (draw.temperature * STEP));
  for (int64_t i = 0; i < look.count; ++i) {
    const float below = (look.most - look.x[i]) * scale;
    ++steps[static_cast<size_t>(below < STEPS ? below : STEPS)];
  }
  double sum = 0;
  for (int b = 0; b < STEPS; ++b) {
    sum += steps[static_cast<size_t>(b)] * std::exp(-STEP * (b + 1));
    if (sum >= mass) return look.most - static_cast<float>(draw.temperature * STEP * (b + 1.01));
  }
  return LEAST;
}

// What logits must reach to be sorted: at first a guess, then what is sure to be enough.
float threshold(const Look& look, const Draw& draw, int turn, double all) {
  if (draw.top_k > 0 && draw.top_k < look.count) return look.reached_by(draw.top_k);
  if (turn == 0) return look.reached_by(64);
  if (turn == 1 && draw.top_p < 1) return reached_by_mass(look, draw, draw.top_p * all);
  if (turn == 1) return look.most + static_cast<float>(draw.temperature * (std::log(draw.min_p) - 1e-3));
  return LEAST;
}

int64_t draw_filtered(const Look& look, const Draw& draw) {
  const bool by_count = draw.top_k > 0 && draw.top_k < look.count;
  const double most = look.most / draw.temperature, all = !by_count && draw.top_p < 1 ? total_of(look, draw) : 0;
  for (int turn = 0;; ++turn) {
    const float least = threshold(look, draw, turn, all);
    std::vector<int> order = look.reaching(least);
    if (by_count) order.resize(std::min(order.size(), static_cast<size_t>(draw.top_k)));
    std::vector<double> weights(order.size());
    double sum = 0;
    for (size_t i = 0; i < order.size(); ++i) sum += weights[i] = std::exp(look.x[order[i]] / draw.temperature - most);
    const double total = by_count || least == LEAST ? sum : all;
    // Enough is sorted once the rest would be cut off anyway.
    const bool by_mass = draw.top_p < 1 && sum >= draw.top_p * total;
    const bool by_share = draw.min_p > 0 && !weights.empty() && weights.back() < draw.min_p;
    if (!by_count && least != LEAST && !by_mass && !by_share) continue;
    double before = 0;
    for (size_t i = 0; i < weights.size(); ++i) {
      const double weight = weights[i];
      if (draw.top_p < 1 && before >= draw.top_p * total) weights[i] = 0;
      if (weight < draw.min_p) weights[i] = 0;
      before += weight;
    }
    return at_number(order, weights, order.size(), draw.number);
  }
}

void penalise(float* x, int64_t count, const Draw& draw) {
  std::vector<std::pair<int64_t, int>> seen;  // token, how often in the output
  for (int64_t token : draw.output) seen.push_back({token, 1});
  if (draw.repetition != 1)
    for (int64_t token : draw.prompt) seen.push_back({token, 0});
  std::sort(seen.begin(), seen.end());
  for (size_t i = 0; i < seen.size();) {
    const int64_t token = seen[i].first;
    float times = 0;
    for (; i < seen.size() && seen[i].first == token; ++i) times += static_cast<float>(seen[i].second);
    if (token < 0 || token >= count) continue;
    float& logit = x[token];
    if (draw.repetition != 1) logit = logit > 0 ? logit / draw.repetition : logit * draw.repetition;
    if (times > 0) logit -= draw.presence + draw.frequency * times;
  }
}

}  // namespace

void choose_tokens(float* logits, int64_t row, int64_t count, const std::vector<Draw>& draws, int64_t* tokens,
                   int threads) {
  const int64_t rows = static_cast<int64_t>(draws.size());
  parallel(rows, rows > 1 ? threads : 1, [&](int64_t i) {
    const Draw& draw = draws[static_cast<size_t>(i)];
    float* x = logits + i * row;
    if (draw.repetition != 1 || draw.presence != 0 || draw.frequency != 0) penalise(x, count, draw);
    const Look look(x, count);
    if (draw.temperature == 0 || !(look.most > LEAST) || look.most == -LEAST) {
      tokens[i] = look.best();
    } else if ((draw.top_k > 0 && draw.top_k < count) || draw.top_p < 1 || draw.min_p > 0) {
      tokens[i] = draw_filtered(look, draw);
    } else {
      tokens[i] = draw_from_all(look, draw);
    }
  });
}

}  // namespace regard
