#include "serving.h"

#include <nanobind/stl/array.h>

#include <array>

#include "packed.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace regard {
namespace {

Weights make_weights(uintptr_t panels, int stored, uintptr_t scale, uintptr_t bias, int64_t depth, int64_t outputs) {
  return {reinterpret_cast<const void*>(panels), static_cast<Stored>(stored), reinterpret_cast<const float*>(scale),
          reinterpret_cast<const float*>(bias), depth, outputs};
}

InputRows make_rows(uintptr_t x, int64_t x_row, int64_t rows, int64_t depth, uintptr_t gain, float eps) {
  return {reinterpret_cast<const float*>(x), x_row, rows, depth, reinterpret_cast<const float*>(gain), eps};
}

void multiply(const Weights& weights, const InputRows& rows, uintptr_t y, int64_t y_row, int into, int threads) {
  nb::gil_scoped_release release;
  multiply_packed(weights, rows, reinterpret_cast<float*>(y), y_row, static_cast<Into>(into), threads);
}

}  // namespace

void bind_serving(nb::module_& m) {
  nb::class_<Weights>(m, "Weights");
  m.def("weights", &make_weights);
  nb::class_<InputRows>(m, "Rows");
  m.def("rows", &make_rows);
  m.def("multiply_packed", &multiply, "weights"_a, "rows"_a, "y"_a, "y_row"_a, "into"_a, "threads"_a);
  m.def("products", [] { return products().name; });
}

}  // namespace regard
