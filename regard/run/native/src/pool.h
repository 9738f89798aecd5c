// A pool of sleeping threads. It outlives nothing: a forked child starts its own, and a caller that finds it busy
// does its work alone.
#pragma once
#include <cstdint>
#include <functional>

namespace regard {

// Calls body(task) for every task once, on up to `threads` threads including the caller's; returns when all are done.
// Tasks are taken in order, so the long ones should come first. The first exception is rethrown here.
void parallel(int64_t tasks, int threads, const std::function<void(int64_t)>& body);

}  // namespace regard
