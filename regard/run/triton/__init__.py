"""Triton kernels for NVIDIA GPUs: exact attention and exact statistics for everything in the closed vocabulary.

Nothing here imports triton until a kernel runs. Triton's own interpreter (TRITON_INTERPRET=1, set before triton is
imported) runs the same kernels on CPU tensors, slowly; it is for tests.

What is promised: a row's output, its statistics and its gradients have the same bits on every run, whatever else is
in the batch, and with or without a watch. Sums over rows are float64 in a fixed order; nothing is added atomically.
"""

from __future__ import annotations

from torch import Tensor

from regard import core
from regard.run.backend import Backend
from regard.run.gradients import differentiable
from regard.run.output import Output
from regard.run.triton.available import why_unavailable
from regard.run.triton.limits import LIMITS

__all__ = ["LIMITS", "TRITON", "why_unavailable"]


def _walk(plan: core.Plan, watch: core.Watch | None, output: bool) -> Output:
    from regard.run.triton import calls, packed

    return calls.walk(plan, watch, output) if isinstance(plan.layout, core.Dense) else packed.walk(plan, output)


def _gradients(
    plan: core.Plan, out: Tensor, row_max: Tensor, row_log_sum: Tensor, grad_out: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    from regard.run.triton.gradients import gradients

    return gradients(plan, out, row_max, row_log_sum, grad_out)


TRITON = Backend(
    "triton",
    "the closed core on NVIDIA GPUs, with its statistics in a second walk",
    LIMITS,
    differentiable("triton", _walk, _gradients),
    device="cuda",
)
