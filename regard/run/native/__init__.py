"""The native CPU core: exact attention and exact statistics in one walk, for everything in the closed vocabulary.

A C++ extension, chosen at run time among the instruction sets it was compiled for (plain, AVX2, AVX-512; the
environment variable REGARD_NATIVE_ISA=base|avx2|avx512|amx overrides). Where the machine has a matrix unit (AMX),
packed linear layers use it, to the precision of float32. The package works without the extension, slower.

What is promised: a row's output has the same bits whatever else is in the call (batch, other rows, other heads),
with or without a watch, and on any number of threads. Statistics have the same bits on any number of threads and
whatever the batch. Different instruction sets round differently.
"""

from __future__ import annotations

from regard.run.backend import Backend
from regard.run.gradients import differentiable
from regard.run.native.backward import gradients
from regard.run.native.extension import available, isa, why_unavailable
from regard.run.native.limits import LIMITS
from regard.run.native.walk import walk

__all__ = ["LIMITS", "NATIVE", "available", "isa", "why_unavailable"]

NATIVE = Backend(
    "native",
    "the closed core in C++ on the CPU, with its statistics in the same walk",
    LIMITS,
    differentiable("native", walk, gradients),
    device="cpu",
)
