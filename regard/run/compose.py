"""One call for every kind of attention: mechanisms by the fastest backend, composites by their parts, recurrences."""

from __future__ import annotations

import torch
from torch import Tensor

from regard.composite import Attention, ByHead, LowRank, Sum, heads_of, pseudo_inverse, segment_means
from regard.evaluate import prepared
from regard.inputs import NO_POSITION, Inputs
from regard.mechanism import Mechanism
from regard.parts.scores import widened
from regard.recurrence import NotObservable, Recurrence, State, ready, tokens
from regard.run import choose, reference, strips

CHUNK = 64


def attend(attention: Attention, x: Inputs, backend: str = "auto") -> Tensor:
    """Output [B,H',Tq,Dv] in the query's type. Named backends are for mechanisms, and for the parts of composites."""
    if isinstance(attention, Mechanism):
        return choose.attend(attention, x, backend)
    if isinstance(attention, Sum):
        return _sum(attention, x, backend)
    if isinstance(attention, ByHead):
        return torch.cat([attend(part, cut, backend) for part, cut in _by_head(attention, x)], 1)
    if isinstance(attention, LowRank):
        return _low_rank(attention, x, backend)
    if backend not in ("auto", "strips", "reference"):
        raise ValueError(f"backend {backend!r} cannot run {attention.name}, a recurrence; use backend='auto'")
    return recur(attention, x, size=1 if backend == "reference" else CHUNK)[0].to(x.q.dtype)


def recur(recurrence: Recurrence, x: Inputs, state: State | None = None, size: int = CHUNK) -> tuple[Tensor, State]:
    """Outputs [B,H,T,Dv] and the state after the last token, `size` tokens at a time; 1 runs the steps themselves."""
    if x.v is None:
        raise ValueError(f"{recurrence.name} needs values; give v")
    width = x.v.shape[-1]
    x = ready(recurrence, x)
    state = recurrence.start(x) if state is None else state
    run, outputs = recurrence.step if size == 1 else recurrence.chunk, []
    for begin in range(0, x.q.shape[2], size):
        state, out = run(state, tokens(x, slice(begin, min(begin + size, x.q.shape[2]))))
        outputs.append(out)
    if not outputs:
        return widened(x.q).new_zeros(*x.q.shape[:3], width), state
    return torch.cat(outputs, 2), state


def weights(attention: Attention, x: Inputs, rows: slice = slice(None), keys: slice = slice(None)) -> Tensor:
    """The weights [B,H',rows,keys] of a rectangle: o = Σ_j w_j v_j. Signed where `attention` is not a Mechanism.

    Raises NotObservable where no such weights exist, saying why.
    """
    if isinstance(attention, Mechanism):
        return strips.rectangle(attention, x, rows, keys)
    if isinstance(attention, Sum):
        return _sum_weights(attention, x, rows, keys)
    if isinstance(attention, ByHead):
        return torch.cat([weights(part, cut, rows, keys) for part, cut in _by_head(attention, x)], 1)
    if isinstance(attention, LowRank):
        left, core, right = _low_rank_factors(attention, x)
        return left[:, :, rows] @ (core @ right[..., keys])
    x = x if x.v is not None else x.replace(v=torch.zeros_like(x.k[..., :1]))
    return attention.effective_weights(ready(attention, x), rows, keys)


def _sum(attention: Sum, x: Inputs, backend: str) -> Tensor:
    outputs = [attend(branch, x, backend) for branch in attention.branches]
    if attention.gates is None:
        return torch.stack(outputs).sum(0)
    gates = attention.gates(x)
    if gates.shape[-1] != len(outputs):
        raise ValueError(f"{attention.name} has {len(outputs)} branches, and its gates {list(gates.shape)}")
    total = (torch.stack(outputs, -1) * gates[..., None, :].to(outputs[0].dtype)).sum(-1)
    return total


def _sum_weights(attention: Sum, x: Inputs, rows: slice, keys: slice) -> Tensor:
    for branch in attention.branches:
        if isinstance(branch, Mechanism) and _other_keys(branch, x):
            raise NotObservable(
                f"{attention.name} has no single matrix of weights: its branch {branch.name} attends to other keys "
                "than the tokens; ask each branch"
            )
    found = torch.stack([weights(branch, x, rows, keys) for branch in attention.branches], -1)
    if attention.gates is None:
        return found.sum(-1)
    return (found * attention.gates(x)[:, :, rows, None, :]).sum(-1)


def _other_keys(mechanism: Mechanism, x: Inputs) -> bool:
    seen = prepared(mechanism, x)
    return seen.key_axis == "slots" or seen.k.shape[2] != x.k.shape[2]


def _by_head(attention: ByHead, x: Inputs) -> list[tuple[Mechanism, Inputs]]:
    heads = x.q.shape[1]
    covered = [head for part, _ in attention.parts for head in range(*part.indices(heads))]
    if covered != list(range(heads)):
        raise ValueError(
            f"{attention.name} must give each of {heads} heads one mechanism, in order; it gives {covered}"
        )
    return [(mechanism, heads_of(x, part)) for part, mechanism in attention.parts]


def _low_rank(attention: LowRank, x: Inputs, backend: str) -> Tensor:
    q_marks, k_marks = _landmarks(attention, x)
    summary = attend(attention.kernel, _between(x, q_marks, x.k, x.v), backend)
    _, inner = reference.attend(attention.kernel.replace(mix=None), _between(x, q_marks, k_marks, None))
    values = pseudo_inverse(inner, attention.iterations) @ summary.to(inner.dtype)
    groups = _between(x, x.q, k_marks.repeat_interleave(x.q.shape[1] // k_marks.shape[1], 1), values)
    return attend(attention.kernel, groups, backend)


@torch.no_grad()
def _low_rank_factors(attention: LowRank, x: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    q_marks, k_marks = _landmarks(attention, x)
    left, inner, right = (
        reference.attend(attention.kernel.replace(mix=None), _between(x, q, k, None))[1]
        for q, k in ((x.q, k_marks), (q_marks, k_marks), (q_marks, x.k))
    )
    return left, pseudo_inverse(inner, attention.iterations), right


def _landmarks(attention: LowRank, x: Inputs) -> tuple[Tensor, Tensor]:
    """Q̃ and K̃. In self-attention the padding of the keys is the padding of the queries."""
    if x.allowed is not None:
        raise ValueError(
            f"{attention.name} cannot take a mask: its landmarks average over the whole sequence; use full"
        )
    same = x.key_valid if x.q.shape[2] == x.k.shape[2] else None
    q_marks = segment_means(widened(x.q), same, attention.count)
    return q_marks, segment_means(widened(x.k), x.key_valid, attention.count)


def _between(x: Inputs, q: Tensor, k: Tensor, v: Tensor | None) -> Inputs:
    """The inputs of a run between tokens and landmarks, which have no positions."""
    valid = x.key_valid if k is x.k else None
    at_q, at_k = (torch.full((t.shape[0], t.shape[2]), NO_POSITION, device=t.device) for t in (q, k))
    return x.replace(q=q, k=k, v=v, query_positions=at_q, key_positions=at_k, key_valid=valid)
