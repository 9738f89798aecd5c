// The Python face of the kernels: records of addresses, shapes and strides. Lifetimes are the caller's.
#include <nanobind/nanobind.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <vector>

#include "forward.h"
#include "kernels.h"
#include "memory.h"
#include "serving.h"

namespace nb = nanobind;
using namespace nb::literals;
using namespace regard;

namespace {

View make_view(uintptr_t address, int type, const std::vector<int64_t>& shape, const std::vector<int64_t>& stride) {
  View view;
  view.address = address;
  view.type = static_cast<Type>(type);
  for (size_t i = 0; i < shape.size() && i < 4; ++i) {
    view.shape[i] = shape[i];
    view.stride[i] = shape[i] == 1 ? 0 : stride[i];  // one slice serves all
  }
  return view;
}

// A call together with the lists it points to. With documents, its tokens are theirs, side by side.
struct OwnedCall : Call {
  std::vector<Term> term_list;
  std::vector<Statistic> statistic_list;
  Documents documents;

  void link() {
    terms = term_list.data();
    num_terms = static_cast<int>(term_list.size());
    statistics = statistic_list.data();
    num_statistics = static_cast<int>(statistic_list.size());
  }
};

void run_forward(OwnedCall& call, int threads) {
  call.link();
  nb::gil_scoped_release release;
  if (call.documents.cu_query.empty()) {
    forward({call}, threads);
  } else {
    forward_ragged(call, call.documents, threads);
  }
}

// The same call on other tensors of the same shapes and strides: addresses of q, k, v, out, row_max and row_log_sum.
void run_again(const OwnedCall& like, const std::array<uintptr_t, 6>& addresses, int threads) {
  OwnedCall call = like;
  View* views[] = {&call.q, &call.k, &call.v, &call.out, &call.row_max, &call.row_log_sum};
  for (size_t i = 0; i < addresses.size(); ++i) views[i]->address = addresses[i];
  run_forward(call, threads);
}

// The same with statistics: addresses of the results of each, two apiece (0 where there is no second).
void watch_again(const OwnedCall& like, const std::array<uintptr_t, 6>& addresses,
                 const std::vector<uintptr_t>& results, int threads) {
  OwnedCall call = like;
  for (size_t i = 0; i < call.statistic_list.size(); ++i) {
    call.statistic_list[i].result.address = results[2 * i];
    call.statistic_list[i].second_result.address = results[2 * i + 1];
  }
  run_again(call, addresses, threads);
}

void decode_again(const Decode& like, const std::array<uintptr_t, 6>& addresses, int threads) {
  Decode call = like;
  View* views[] = {&call.q, &call.key_pages, &call.value_pages, &call.out, &call.row_max, &call.row_log_sum};
  for (size_t i = 0; i < addresses.size(); ++i) views[i]->address = addresses[i];
  nb::gil_scoped_release release;
  decode(call, threads);
}

void run_backward(OwnedCall& call, int threads) {
  call.link();
  nb::gil_scoped_release release;
  backward(call, threads);
}

}  // namespace

NB_MODULE(_core, m) {
  nb::set_leak_warnings(false);  // who holds a record when Python ends has not lost it
  nb::class_<View>(m, "View").def(nb::init<>());
  m.def("view", &make_view, "address"_a, "type"_a, "shape"_a, "stride"_a);

  nb::class_<OwnedCall>(m, "Call")
      .def(nb::init<>())
      .def(nb::init<const OwnedCall&>())
      .def_rw("q", &OwnedCall::q)
      .def_rw("k", &OwnedCall::k)
      .def_rw("v", &OwnedCall::v)
      .def_rw("block_table", &OwnedCall::block_table)
      .def_rw("out", &OwnedCall::out)
      .def_rw("row_max", &OwnedCall::row_max)
      .def_rw("row_log_sum", &OwnedCall::row_log_sum)
      .def_rw("query_positions", &OwnedCall::query_positions)
      .def_rw("key_positions", &OwnedCall::key_positions)
      .def_rw("start", &OwnedCall::start)
      .def_rw("stop", &OwnedCall::stop)
      .def_rw("head_scale", &OwnedCall::head_scale)
      .def_rw("sink", &OwnedCall::sink)
      .def_rw("scale", &OwnedCall::scale)
      .def_rw("key_scale", &OwnedCall::key_scale)
      .def_rw("counted", &OwnedCall::counted)
      .def("term", [](OwnedCall& call, int kind, float number,
                      View tensor) { call.term_list.push_back({static_cast<Term::Kind>(kind), number, tensor}); })
      .def("statistic",
           [](OwnedCall& call, int kind, int64_t size, std::array<int64_t, 3> cell, View first, View second,
              View result, View second_result) {
             call.statistic_list.push_back({static_cast<Statistic::Kind>(kind), size, static_cast<int>(cell[0]),
                                            static_cast<int>(cell[1]), cell[2], first, second, result, second_result});
           })
      .def_rw("grad_out", &OwnedCall::grad_out)
      .def_rw("grad_q", &OwnedCall::grad_q)
      .def_rw("grad_k", &OwnedCall::grad_k)
      .def_rw("grad_v", &OwnedCall::grad_v)
      .def("forward", &run_forward, "threads"_a)
      .def("again", &run_again, "addresses"_a, "threads"_a)
      .def("watch", &watch_again, "addresses"_a, "results"_a, "threads"_a)
      .def(
          "documents",
          [](OwnedCall& call, std::vector<int64_t> cu_query, std::vector<int64_t> cu_key, std::vector<int64_t> walked) {
            call.documents = {std::move(cu_query), std::move(cu_key), std::move(walked)};
          })
      .def("backward", &run_backward, "threads"_a);

  nb::class_<Decode>(m, "Decode")
      .def(nb::init<>())
      .def_rw("q", &Decode::q)
      .def_rw("out", &Decode::out)
      .def_rw("row_max", &Decode::row_max)
      .def_rw("row_log_sum", &Decode::row_log_sum)
      .def_rw("key_pages", &Decode::key_pages)
      .def_rw("value_pages", &Decode::value_pages)
      .def_rw("block_table", &Decode::block_table)
      .def_rw("lengths", &Decode::lengths)
      .def_rw("starts", &Decode::starts)
      .def_rw("sink", &Decode::sink)
      .def_rw("scale", &Decode::scale)
      .def("again", &decode_again, "addresses"_a, "threads"_a);
  m.def("check_table", &check_table, "block_table"_a, "lengths"_a, "page_size"_a, "num_pages"_a);
  m.def("write_pages", &write_pages, nb::call_guard<nb::gil_scoped_release>());
  m.def("advise_huge", &advise_huge, "address"_a, "bytes"_a);
  m.def(
      "read_floats",
      [](uintptr_t address, int64_t count, int threads) {
        nb::gil_scoped_release release;
        return read_floats(reinterpret_cast<const float*>(address), count, threads);
      },
      "address"_a, "count"_a, "threads"_a);
  bind_serving(m);

  m.def("isa", [] { return kernels().name; });
}
