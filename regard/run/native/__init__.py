"""The native CPU core: exact attention and exact statistics in one walk, for everything in the closed vocabulary.

A C++ extension, chosen at run time among the instruction sets it was compiled for (plain, AVX2, AVX-512; the
environment variable REGARD_NATIVE_ISA=base|avx2|avx512 overrides). The package works without it, slower.

What is promised: a row's output has the same bits whatever else is in the call (batch, other rows, other heads),
with or without a watch, and on any number of threads. Statistics have the same bits on any number of threads and
whatever the batch. Different instruction sets round differently.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from regard import core
from regard.run import gradients
from regard.run.backend import Request, refusal
from regard.run.native import calls
from regard.run.native.extension import available, isa, why_unavailable
from regard.run.native.limits import LIMITS
from regard.run.output import Output

__all__ = ["LIMITS", "NATIVE", "Native", "available", "isa", "why_unavailable"]


@dataclass(frozen=True)
class Native:
    """The backend: `refuses` says in one sentence what it cannot do, `run` does the rest."""

    name: str = "native"

    def refuses(self, plan: core.Plan, watch: core.Watch | None = None, needs_grad: bool = False) -> str | None:
        """None if this plan can run here; else which part stands in the way, and why."""
        return refusal(self.name, LIMITS, Request(lambda: plan, watch, needs_grad))

    def run(self, plan: core.Plan, watch: core.Watch | None = None, output: bool = True) -> Output:
        """One walk over the plan: the output if asked for, the rows' state, and what each watched record gives."""
        reason = self.refuses(plan, watch, output and gradients.wants_grad(plan))
        if reason is not None:
            raise ValueError(f"the native core cannot run this: {reason}")
        return gradients.run(plan, watch, output, calls.walk, calls.gradients)


NATIVE = Native()


def attention(plan: core.Plan) -> Tensor:
    """The output alone, [B,H,Tq,Dv]."""
    out = NATIVE.run(plan).out
    assert out is not None
    return out
