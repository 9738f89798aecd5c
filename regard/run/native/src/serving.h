// The Python face of what a server computes beside attention.
#pragma once
#include <nanobind/nanobind.h>

namespace regard {

void bind_serving(nanobind::module_& m);

}  // namespace regard
