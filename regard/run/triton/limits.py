"""What the Triton kernels do not compute, in the form that every backend says it."""

from __future__ import annotations

from torch import Tensor

from regard import core
from regard.run.backend import CLOSED, Limit, Request
from regard.run.limits import DTYPES, POSITIONS, STATISTICS, TERMS, beside_q, gradients, most_sums, of_tensors
from regard.run.triton.available import why_unavailable
from regard.run.triton.shapes import WIDEST

MAX_TOP = 16
MAX_SUMS = 32
MAX_BINS = 64


def _machine(request: Request) -> str | None:
    return None if isinstance(request.closed, core.Refusal) else why_unavailable(request.plan.q.device)


def _width(tensor: Tensor, plan: core.Plan) -> str | None:
    return None if 0 < tensor.shape[-1] <= WIDEST else f"is {tensor.shape[-1]} wide"


def _top(request: Request) -> str | None:
    beyond = [s.k for s in request.statistics if isinstance(s, core.TopK) and not 1 <= s.k <= MAX_TOP]
    return f"TopK: keeps {beyond[0]} links a row" if beyond else None


def _bins(request: Request) -> str | None:
    beyond = [
        s.bins for s in request.statistics if isinstance(s, core.DistanceHistogram) and not 1 <= s.bins <= MAX_BINS
    ]
    return f"DistanceHistogram: has {beyond[0]} bins" if beyond else None


def _packed(request: Request) -> str | None:
    if not request.num_documents:
        return None
    if request.watch is not None:
        return "Watch: asks for statistics of packed documents"
    return "gradients: are asked for on packed documents" if request.needs_grad else None


LIMITS = (
    CLOSED,
    Limit("machine", "needs an NVIDIA GPU of Ampere or newer, and triton 3.7 or newer", _machine),
    Limit("devices", "computes where q lies", of_tensors(beside_q)),
    DTYPES,
    Limit("widths", f"takes heads 1 to {WIDEST} wide", of_tensors(_width)),
    TERMS,
    POSITIONS,
    gradients("a scale", "a sink"),
    *STATISTICS,
    Limit("statistics", f"keeps 1 to {MAX_TOP} links a row", _top),
    Limit("statistics", f"has 1 to {MAX_BINS} bins of distance", _bins),
    most_sums(MAX_SUMS),
    Limit("packed documents", "gives the output alone there", _packed),
)
