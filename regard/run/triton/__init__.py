"""Triton kernels for NVIDIA GPUs: exact attention and exact statistics for everything in the closed vocabulary.

Nothing here imports triton until a kernel runs. Triton's own interpreter (TRITON_INTERPRET=1, set before triton is
imported) runs the same kernels on CPU tensors, slowly; it is for tests.

What is promised: a row's output, its statistics and its gradients have the same bits on every run, whatever else is
in the batch, and with or without a watch. Sums over rows are float64 in a fixed order; nothing is added atomically.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from regard import core
from regard.run.backend import Request, refusal
from regard.run.gradients import run, wants_grad
from regard.run.output import Output
from regard.run.triton.available import why_unavailable
from regard.run.triton.limits import LIMITS

__all__ = ["LIMITS", "TRITON", "Triton", "why_unavailable"]


@dataclass(frozen=True)
class Triton:
    """The backend: `refuses` says in one sentence what it cannot do, `run` does the rest."""

    name: str = "triton"

    def refuses(self, plan: core.Plan, watch: core.Watch | None = None, needs_grad: bool = False) -> str | None:
        """None if this plan can run here; else which part stands in the way, and why."""
        return refusal(self.name, LIMITS, Request(lambda: plan, watch, needs_grad))

    def run(self, plan: core.Plan, watch: core.Watch | None = None, output: bool = True) -> Output:
        """The output if asked for, the rows' state, and what each watched record gives; differentiable."""
        from regard.run.triton.calls import walk
        from regard.run.triton.gradients import gradients

        reason = self.refuses(plan, watch, output and wants_grad(plan))
        if reason is not None:
            raise ValueError(f"the Triton kernels cannot run this: {reason}")
        return run(plan, watch, output, walk, gradients)


TRITON = Triton()


def attention(plan: core.Plan) -> Tensor:
    """The output alone, [B,H,Tq,Dv]."""
    out = TRITON.run(plan).out
    assert out is not None
    return out
