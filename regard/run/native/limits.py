"""What the native core does not compute, in the form that every backend says it."""

from __future__ import annotations

from torch import Tensor

from regard import core
from regard.run.backend import CLOSED, Limit, Request
from regard.run.limits import DTYPES, POSITIONS, STATISTICS, TERMS, gradients, most_sums, of_tensors
from regard.run.native.extension import why_unavailable

MAX_ROW_SUMS = 61


def _device(tensor: Tensor, plan: core.Plan) -> str | None:
    return None if tensor.device.type == "cpu" else f"lies on {tensor.device}"


def _strides(tensor: Tensor, plan: core.Plan) -> str | None:
    gaps = tensor.stride(-1) != 1 and tensor.shape[-1] > 1
    return "its last dimension is not contiguous" if gaps else None


def _packed_gradients(request: Request) -> str | None:
    return "gradients: are asked for on packed documents" if request.num_documents and request.needs_grad else None


def _packed_maps(request: Request) -> str | None:
    several = request.num_documents > 1 and any(isinstance(s, core.Pool) for s in request.statistics)
    return f"Pool: is asked for on {request.num_documents} documents" if several else None


LIMITS = (
    Limit("machine", "needs its compiled core; everything works without it, slower", lambda request: why_unavailable()),
    CLOSED,
    Limit("devices", "computes on the CPU", of_tensors(_device)),
    DTYPES,
    Limit("memory layout", "reads a contiguous last dimension; give x.contiguous()", of_tensors(_strides)),
    TERMS,
    POSITIONS,
    gradients("a scale", "a sink"),
    *STATISTICS,
    most_sums(MAX_ROW_SUMS),
    Limit("packed documents", "has no gradients there", _packed_gradients),
    Limit("packed documents", "pools one at a time: a map of several documents has no one shape", _packed_maps),
)
