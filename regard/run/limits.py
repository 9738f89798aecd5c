"""Limits of the backends that compute the closed core: what they check alike, said once."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from regard import core
from regard.inputs import NO_POSITION, PAGE_TYPES
from regard.run.backend import Limit, Request, all_tensors

POSITION_SPAN = 1 << 30
ONCE = (core.TopK, core.DistanceHistogram, core.Pool)
READERS = (core.Slope, core.Distance, core.RowDistance, core.DistanceHistogram)
FURTHER_TERMS = (core.KeyBias, core.Slope, core.Distance, core.Table, core.Softcap)


def of_tensors(broken: Callable[[Tensor, core.Plan], str | None]) -> Callable[[Request], str | None]:
    """The first of q, k and v of which something is broken."""

    def hit(request: Request) -> str | None:
        for name, tensor in all_tensors(request.plan).items():
            why = broken(tensor, request.plan)
            if why is not None:
                return f"{name}: {why}"
        return None

    return hit


def beside_q(tensor: Tensor, plan: core.Plan) -> str | None:
    """What is broken where a tensor lies on another device than q."""
    return None if tensor.device == plan.q.device else f"lies on {tensor.device} and q on {plan.q.device}"


def _dtype(tensor: Tensor, plan: core.Plan) -> str | None:
    if tensor.dtype not in PAGE_TYPES:
        return f"is {tensor.dtype}"
    return None if tensor.dtype == plan.q.dtype else f"is {tensor.dtype} and q {plan.q.dtype}"


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


def readers_of_positions(plan: core.Plan, watch: core.Watch | None) -> list[object]:
    """The terms and watched statistics that do."""
    parts = (*plan.terms, *(() if watch is None else watch.statistics))
    return [part for part in parts if isinstance(part, READERS)]


def _positions(request: Request) -> str | None:
    plan, readers = request.plan, readers_of_positions(request.plan, request.watch)
    given = [p for p in (plan.query_positions, plan.key_positions) if p.numel()]
    if not readers or not given:
        return None
    first, last = min(int(p.min()) for p in given), max(int(p.max()) for p in given)
    if last - first < POSITION_SPAN:
        return None
    said = "are not known" if first == NO_POSITION else f"span {last - first} tokens"
    return f"{type(readers[0]).__name__}: reads positions, which {said}"


def _statistics(request: Request) -> str | None:
    for wanted in request.statistics:
        if not isinstance(wanted, core.CoreStatistic):
            return f"{type(wanted).__name__}: is none of them"
    return None


def _repeated(request: Request) -> str | None:
    for kind in ONCE:
        if sum(isinstance(s, kind) for s in request.statistics) > 1:
            return f"{kind.__name__}: is watched twice in one call"
    return None


def _scaled_entropy(request: Request) -> str | None:
    watch = request.watch
    if watch is None or watch.key_scale is None:
        return None
    return "RowEntropy: has a key scale" if any(isinstance(s, core.RowEntropy) for s in watch.statistics) else None


def most_sums(most: int) -> Limit:
    """At most so many sums per row in one call."""

    def hit(request: Request) -> str | None:
        count = sum(isinstance(s, core.RowSum | core.RowMatch | core.RowDistance) for s in request.statistics)
        return f"Watch: has {count} sums per row" if count > most else None

    return Limit("statistics", f"takes {most} sums per row a call; watch more in several", hit)


def gradients(*more: str) -> Limit:
    """Gradients of q, k, v and of what else is named: a scale, a sink."""
    kinds: dict[str, type] = {"a scale": core.Dot, "a sink": core.Softmax}
    able = tuple(kinds[name] for name in more)

    def hit(request: Request) -> str | None:
        if not request.needs_grad:
            return None
        parts = [part for part in (*request.plan.terms, request.plan.softmax) if not isinstance(part, able)]
        asking = [p for p in parts if any(isinstance(t, Tensor) and t.requires_grad for t in vars(p).values())]
        return f"{type(asking[0]).__name__}: asks for a gradient" if asking else None

    of = ["q", "k", "v", *more]
    return Limit("gradients", f"has gradients of {', '.join(of[:-1])} and {of[-1]}, not of other parts", hit)


DTYPES = Limit("dtypes", "takes float32, bfloat16 or float16, the same for q, k and v", of_tensors(_dtype))
TERMS = Limit("score terms", "takes Dot once and first, then KeyBias, Slope, Distance, Table or Softcap", _terms)
POSITIONS = Limit("positions", "needs positions, where they are read, to be given and less than 2^30 apart", _positions)
STATISTICS = (
    Limit("statistics", "reduces those of core.py", _statistics),
    Limit("statistics", "takes TopK, DistanceHistogram and Pool once a call; watch others in another", _repeated),
    Limit("statistics", "takes RowEntropy without a key scale", _scaled_entropy),
)
