"""What the kernels cannot compute: which part of a plan or watch stands in the way, and why, in one sentence."""

from __future__ import annotations

from torch import Tensor

from regard import core
from regard.run.triton.shapes import WIDEST

STORED = ("float32", "bfloat16", "float16")
MAX_TOP = 16
MAX_SUMS = 32
MAX_BINS = 64
POSITION_SPAN = 1 << 30
ONCE = (core.TopK, core.DistanceHistogram, core.Pool)


def refusal(plan: core.Plan, watch: core.Watch | None, needs_grad: bool) -> str | None:
    """Which part of this plan or watch the kernels cannot compute, and why; None if they can."""
    return (
        _refused_tensors(plan)
        or _refused_terms(plan)
        or (_refused_watch(watch) if watch is not None else None)
        or (_refused_positions(plan) if reads_positions(plan, watch) else None)
        or (_refused_grad(plan) if needs_grad else None)
    )


def _refused_tensors(plan: core.Plan) -> str | None:
    for name, tensor in (("q", plan.q), ("k", plan.k), ("v", plan.v)):
        if tensor is None:
            continue
        if tensor.device != plan.q.device:
            return f"{name}: lies on {tensor.device} and q on {plan.q.device}; they must agree"
        if str(tensor.dtype).removeprefix("torch.") not in STORED:
            return f"{name}: is {tensor.dtype}; float32, bfloat16 and float16 are supported"
        if tensor.dtype != plan.q.dtype:
            return f"{name}: is {tensor.dtype} and q {plan.q.dtype}; they must agree"
        if not 0 < tensor.shape[-1] <= WIDEST:
            return f"{name}: is {tensor.shape[-1]} wide; a tile holds widths of 1 to {WIDEST}"
    return None


def _refused_terms(plan: core.Plan) -> str | None:
    if not plan.terms or not isinstance(plan.terms[0], core.Dot):
        return "score: does not begin with Dot"
    for term in plan.terms[1:]:
        if isinstance(term, core.Dot):
            return "Dot: occurs twice; only the first term may be a dot product"
        if not isinstance(term, core.KeyBias | core.Slope | core.Distance | core.Table | core.Softcap):
            return f"{type(term).__name__}: is not a score term that the Triton kernels know"
    return None


def _refused_watch(watch: core.Watch) -> str | None:
    for kind in ONCE:
        if sum(isinstance(s, kind) for s in watch.statistics) > 1:
            return f"{kind.__name__}: is watched twice in one call; watch it in two"
    for wanted in watch.statistics:
        if isinstance(wanted, core.RowEntropy) and watch.key_scale is not None:
            return "RowEntropy: is not defined with a key scale"
        if isinstance(wanted, core.TopK) and not 1 <= wanted.k <= MAX_TOP:
            return f"TopK: keeps {wanted.k} links a row; the kernels hold 1 to {MAX_TOP}"
        if isinstance(wanted, core.DistanceHistogram) and not 1 <= wanted.bins <= MAX_BINS:
            return f"DistanceHistogram: has {wanted.bins} bins; the kernels hold 1 to {MAX_BINS}"
        if not isinstance(wanted, core.CoreStatistic):
            return f"{type(wanted).__name__}: is not a statistic that the Triton kernels know"
    if sum(isinstance(s, core.RowSum | core.RowMatch | core.RowDistance) for s in watch.statistics) > MAX_SUMS:
        return f"watch: more than {MAX_SUMS} sums per row; watch them in several calls"
    return None


def reads_positions(plan: core.Plan, watch: core.Watch | None) -> bool:
    """Whether a score term or a watched statistic does."""
    watched = () if watch is None else watch.statistics
    return any(isinstance(t, core.Slope | core.Distance) for t in plan.terms) or any(
        isinstance(s, core.RowDistance | core.DistanceHistogram) for s in watched
    )


def _refused_positions(plan: core.Plan) -> str | None:
    both = [p for p in (plan.query_positions, plan.key_positions) if p.numel()]
    if both and max(int(p.max()) for p in both) - min(int(p.min()) for p in both) >= POSITION_SPAN:
        return "positions: span 2^30 or more, or the queries' are not known; give query_positions"
    return None


def _refused_grad(plan: core.Plan) -> str | None:
    for term in plan.terms:
        if any(isinstance(x, Tensor) and x.requires_grad for x in vars(term).values()):
            return f"{type(term).__name__}: the kernels have gradients of queries, keys and values, not of a score term"
    if plan.softmax.sink is not None and plan.softmax.sink.requires_grad:
        return "Softmax: the kernels have gradients of queries, keys and values, not of a sink"
    return None
