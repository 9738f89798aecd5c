#include "serving.h"

#include <nanobind/stl/array.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <vector>

#include "choose.h"
#include "layer.h"
#include "numbers.h"
#include "packed.h"
#include "seen.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace regard {
namespace {

Weights make_weights(uintptr_t panels, int stored, uintptr_t scale, uintptr_t bias, int64_t depth, int64_t outputs) {
  return {reinterpret_cast<const void*>(panels),
          static_cast<Stored>(stored),
          reinterpret_cast<const float*>(scale),
          reinterpret_cast<const float*>(bias),
          depth,
          outputs};
}

InputRows make_rows(uintptr_t x, int64_t x_row, int64_t rows, int64_t depth, uintptr_t gain, float eps) {
  return {reinterpret_cast<const float*>(x), x_row, rows, depth, reinterpret_cast<const float*>(gain), eps};
}

void multiply(const Weights& weights, const InputRows& rows, uintptr_t y, int64_t y_row, int into, int threads) {
  nb::gil_scoped_release release;
  multiply_packed(weights, rows, reinterpret_cast<float*>(y), y_row, static_cast<Into>(into), threads);
}

const float* floats(uintptr_t address) { return reinterpret_cast<const float*>(address); }

// gains: of the attention's norm, the feed-forward's, queries and keys (0: none). sizes: heads, groups, key and value width.
Layer make_layer(const std::array<Weights, 4>& weights, const std::array<uintptr_t, 4>& gains, float eps,
                 const std::array<int64_t, 4>& sizes) {
  const auto& [joined, out, gated, down] = weights;
  return {joined,           out, gated,    down,     floats(gains[0]), floats(gains[1]), floats(gains[2]),
          floats(gains[3]), eps, sizes[0], sizes[1], sizes[2],         sizes[3]};
}

// addresses: hidden, joined, attended, between, cos, sin, slots.
Step make_step(int64_t rows, int64_t joined_row, const std::array<uintptr_t, 7>& addresses) {
  const auto at = [&](int i) { return reinterpret_cast<float*>(addresses[i]); };
  return {rows, at(0), at(1), at(2), at(3), joined_row, at(4), at(5), reinterpret_cast<const int64_t*>(addresses[6])};
}

std::vector<int64_t> whole_numbers(const nb::sequence& from) {
  std::vector<int64_t> found;
  found.reserve(nb::len(from));
  for (nb::handle number : from) found.push_back(PyLong_AsLongLong(number.ptr()));
  return found;
}

// rows: (temperature, top_k, top_p, min_p, number, penalties, prompt, output) of each, or None for the best.
std::vector<int64_t> choose(uintptr_t logits, int64_t row, int64_t count, const nb::list& rows, int threads) {
  std::vector<Draw> draws(nb::len(rows));
  for (size_t i = 0; i < draws.size(); ++i) {
    if (rows[i].is_none()) continue;
    const nb::tuple asked = nb::cast<nb::tuple>(rows[i]);
    Draw& draw = draws[i];
    draw.temperature = nb::cast<double>(asked[0]);
    draw.top_k = nb::cast<int64_t>(asked[1]);
    draw.top_p = nb::cast<double>(asked[2]);
    draw.min_p = nb::cast<double>(asked[3]);
    draw.number = nb::cast<double>(asked[4]);
    if (asked[5].is_none()) continue;
    const nb::tuple penalties = nb::cast<nb::tuple>(asked[5]);
    draw.repetition = static_cast<float>(nb::cast<double>(penalties[0]));
    draw.presence = static_cast<float>(nb::cast<double>(penalties[1]));
    draw.frequency = static_cast<float>(nb::cast<double>(penalties[2]));
    if (draw.repetition != 1) draw.prompt = whole_numbers(nb::cast<nb::sequence>(asked[6]));
    draw.output = whole_numbers(nb::cast<nb::sequence>(asked[7]));
  }
  std::vector<int64_t> tokens(draws.size());
  nb::gil_scoped_release release;
  choose_tokens(reinterpret_cast<float*>(logits), row, count, draws, tokens.data(), threads);
  return tokens;
}

// results: top, top_keys, entropy, sink, messages (0: not asked for). sizes: layers, top_k, sinks, spans.
SeenStep make_seen(bool mean, std::vector<int64_t> heads, const std::array<int64_t, 4>& sizes,
                   const std::array<uintptr_t, 5>& results) {
  const auto at = [&](int i) { return reinterpret_cast<float*>(results[i]); };
  SeenStep step;
  step.heads = std::move(heads);
  step.mean = mean;
  step.layers = sizes[0], step.top_k = sizes[1], step.sinks = sizes[2], step.spans = sizes[3];
  step.top = at(0), step.top_keys = reinterpret_cast<int*>(results[1]);
  step.entropy = at(2), step.sink = at(3), step.messages = at(4);
  return step;
}

// A sequence's rows first_row … first_row+count-1, at positions from `position` on, results from `result` on.
void add_sequence(SeenStep& step, const std::array<int64_t, 4>& rows, std::vector<int64_t> spans, uintptr_t received,
                  int64_t received_keys) {
  SeenSequence sequence;
  const auto [first_row, count, position, result] = rows;
  for (int64_t i = 0; i < count; ++i) sequence.rows.push_back({first_row + i, position + i, result + i});
  sequence.spans = std::move(spans);
  sequence.received = reinterpret_cast<double*>(received);
  sequence.received_keys = received_keys;
  step.sequences.push_back(std::move(sequence));
}

// tables: where each sequence's block table in this layer's group lies.
void see_layer(SeenStep& step, int64_t index, View q, View key_pages, const std::vector<uintptr_t>& tables,
               uintptr_t sink, float scale, float softcap, int64_t window, int threads) {
  nb::gil_scoped_release release;
  for (size_t i = 0; i < step.sequences.size(); ++i) step.sequences[i].pages = reinterpret_cast<const int*>(tables[i]);
  see(step, {index, q, key_pages, reinterpret_cast<const float*>(sink), scale, softcap, window}, threads);
}

}  // namespace

void bind_serving(nb::module_& m) {
  nb::class_<Weights>(m, "Weights");
  m.def("weights", &make_weights);
  nb::class_<InputRows>(m, "Rows");
  m.def("rows", &make_rows);
  m.def("multiply_packed", &multiply, "weights"_a, "rows"_a, "y"_a, "y_row"_a, "into"_a, "threads"_a);
  nb::class_<Layer>(m, "Layer");
  m.def("layer", &make_layer);
  nb::class_<Step>(m, "Step");
  m.def("step", &make_step);
  m.def("before_attention", &before_attention, nb::call_guard<nb::gil_scoped_release>());
  m.def("after_attention", &after_attention, nb::call_guard<nb::gil_scoped_release>());
  nb::class_<SeenStep>(m, "SeenStep").def("add", &add_sequence).def("see", &see_layer);
  m.def("seen_step", &make_seen);
  m.def("json_of",
        [](uintptr_t x, bool whole, const std::array<int64_t, 3>& shape, const std::array<int64_t, 3>& stride) {
          return whole ? json_of(reinterpret_cast<const int*>(x), shape, stride)
                       : json_of(reinterpret_cast<const float*>(x), shape, stride);
        });
  m.def("choose_tokens", &choose);
  m.def("products", [] { return products().name; });
}

}  // namespace regard
