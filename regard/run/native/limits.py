"""What the native core does not compute, in the form that every backend says it."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from regard import core
from regard.mechanism import NO_POSITION
from regard.run.backend import CLOSED, Limit, Request, all_tensors
from regard.run.native.calls import STORED
from regard.run.native.extension import why_unavailable

POSITION_SPAN = 1 << 30
MAX_ROW_SUMS = 61
ONCE = (core.TopK, core.DistanceHistogram, core.Pool)
READERS = (core.Slope, core.Distance, core.RowDistance, core.DistanceHistogram)
FURTHER_TERMS = (core.KeyBias, core.Slope, core.Distance, core.Table, core.Softcap)


def _of_tensors(broken: Callable[[Tensor, core.Plan], str | None]) -> Callable[[Request], str | None]:
    """The first of q, k and v of which something is broken."""

    def hit(request: Request) -> str | None:
        for name, tensor in all_tensors(request.plan).items():
            found = broken(tensor, request.plan)
            if found is not None:
                return f"{name}: {found}"
        return None

    return hit


def _device(tensor: Tensor, plan: core.Plan) -> str | None:
    return None if tensor.device.type == "cpu" else f"lies on {tensor.device}"


def _dtype(tensor: Tensor, plan: core.Plan) -> str | None:
    if tensor.dtype not in STORED:
        return f"is {tensor.dtype}"
    return None if tensor.dtype == plan.q.dtype else f"is {tensor.dtype} and q {plan.q.dtype}"


def _strides(tensor: Tensor, plan: core.Plan) -> str | None:
    gaps = tensor.stride(-1) != 1 and tensor.shape[-1] > 1
    return "its last dimension is not contiguous" if gaps else None


def _terms(request: Request) -> str | None:
    terms = request.plan.terms
    if not terms or not isinstance(terms[0], core.Dot):
        return f"{type(terms[0]).__name__ if terms else 'score'}: does not begin with Dot"
    for term in terms[1:]:
        if isinstance(term, core.Dot):
            return "Dot: occurs twice"
        if not isinstance(term, FURTHER_TERMS):
            return f"{type(term).__name__}: is no term of these"
    return None


def _positions(request: Request) -> str | None:
    plan, watched = request.plan, () if request.watch is None else request.watch.statistics
    readers = [part for part in (*plan.terms, *watched) if isinstance(part, READERS)]
    given = [p for p in (plan.query_positions, plan.key_positions) if p.numel()]
    if not readers or not given:
        return None
    first, last = min(int(p.min()) for p in given), max(int(p.max()) for p in given)
    if last - first < POSITION_SPAN:
        return None
    said = "are not known" if first == NO_POSITION else f"span {last - first} tokens"
    return f"{type(readers[0]).__name__}: reads positions, which {said}"


def _gradients(request: Request) -> str | None:
    if not request.needs_grad:
        return None
    biases = [term for term in request.plan.terms if not isinstance(term, core.Dot)]
    asking = [p for p in biases if any(isinstance(t, Tensor) and t.requires_grad for t in vars(p).values())]
    return f"{type(asking[0]).__name__}: asks for a gradient" if asking else None


def _statistics(request: Request) -> str | None:
    for wanted in () if request.watch is None else request.watch.statistics:
        if not isinstance(wanted, core.CoreStatistic):
            return f"{type(wanted).__name__}: is none of them"
    return None


def _repeated(request: Request) -> str | None:
    watched = () if request.watch is None else request.watch.statistics
    for kind in ONCE:
        if sum(isinstance(s, kind) for s in watched) > 1:
            return f"{kind.__name__}: is watched twice in one call"
    return None


def _scaled_entropy(request: Request) -> str | None:
    watch = request.watch
    if watch is None or watch.key_scale is None:
        return None
    return "RowEntropy: has a key scale" if any(isinstance(s, core.RowEntropy) for s in watch.statistics) else None


def _row_sums(request: Request) -> str | None:
    watched = () if request.watch is None else request.watch.statistics
    count = sum(isinstance(s, core.RowSum | core.RowMatch | core.RowDistance) for s in watched)
    return f"Watch: has {count} sums per row" if count > MAX_ROW_SUMS else None


def _packed_gradients(request: Request) -> str | None:
    return "gradients: are asked for on packed documents" if request.documents and request.needs_grad else None


def _packed_maps(request: Request) -> str | None:
    watched = () if request.watch is None else request.watch.statistics
    several = request.documents > 1 and any(isinstance(s, core.Pool) for s in watched)
    return f"Pool: is asked for on {request.documents} documents" if several else None


LIMITS = (
    Limit("machine", "needs its compiled core; everything works without it, slower", lambda request: why_unavailable()),
    CLOSED,
    Limit("devices", "computes on the CPU", _of_tensors(_device)),
    Limit("dtypes", "takes float32, bfloat16 or float16, the same for q, k and v", _of_tensors(_dtype)),
    Limit("memory layout", "reads a contiguous last dimension; give x.contiguous()", _of_tensors(_strides)),
    Limit("score terms", "takes Dot once and first, then KeyBias, Slope, Distance, Table or Softcap", _terms),
    Limit("positions", "needs positions, where they are read, to be given and less than 2^30 apart", _positions),
    Limit("gradients", "has gradients of q, k, v, a scale and a sink, not of a bias", _gradients),
    Limit("statistics", "reduces those of core.py", _statistics),
    Limit("statistics", "takes TopK, DistanceHistogram and Pool once a call; watch others in another", _repeated),
    Limit("statistics", "takes RowEntropy without a key scale", _scaled_entropy),
    Limit("statistics", f"takes {MAX_ROW_SUMS} sums per row a call; watch more in several", _row_sums),
    Limit("packed documents", "has no gradients there", _packed_gradients),
    Limit("packed documents", "pools one at a time: a map of several documents has no one shape", _packed_maps),
)
