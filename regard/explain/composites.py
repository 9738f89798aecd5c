"""The worked example of what is no single mechanism: recurrences by their states, composites by their parts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import singledispatch
from typing import Any

import torch
from torch import Tensor

from regard.composite import ByHead, LowRank, Sum, heads_of, segment_means
from regard.explain.record import Panel, Step
from regard.explain.steps import Labels, cells, meaning, of_mechanism, per_pair, per_token, shape, words
from regard.inputs import Inputs, inputs
from regard.mechanism import Mechanism
from regard.parts.scores import widened
from regard.protocol import Attention, NotObservable
from regard.recurrent import Recurrence, ready, tokens
from regard.run import compose


@dataclass(frozen=True, eq=False)
class Worked:
    """Steps, the last one's whole tensor, and the reason where there are no weights to show."""

    steps: list[Step]
    last: Tensor
    unobservable: str | None = None


@singledispatch
def worked(attention: Attention, x: Inputs, labels: Labels) -> Worked:
    """Every step after queries, keys and values. A kind of attention that is not registered here shows its result."""
    out = compose.attend(attention, x, "reference")
    weights, reason = _weights_step(attention, x, labels)
    return Worked([*weights, per_token("context", meaning(attention), out, labels.queries, labels)], out, reason)


@worked.register
def _of_mechanism(attention: Mechanism, x: Inputs, labels: Labels) -> Worked:
    return Worked(*of_mechanism(attention, x, labels))


def _weights_step(
    attention: Attention, x: Inputs, labels: Labels, equation: str = "o_i = Σ_j w_ij v_j"
) -> tuple[list[Step], str | None]:
    """The weights as a step, or the reason why there are none."""
    try:
        return [per_pair("weights", equation, compose.weights(attention, x), labels, "weights")], None
    except NotObservable as error:
        return [], str(error)


# ---- recurrences -----------------------------------------------------------------------------------------------------


@worked.register
def _of_recurrence(recurrence: Recurrence, x: Inputs, labels: Labels) -> Worked:
    steps, before = [], x
    for part in recurrence.prepare:
        after = part(before)
        for name, said in (("q", "queries"), ("k", "keys")):
            if not torch.equal(getattr(after, name), getattr(before, name)):
                step = per_token(f"{said}, {words(part)}", meaning(part), getattr(after, name), labels.queries, labels)
                steps.append(step)
        before = after
    made = ready(recurrence, x)
    state, outputs, panels, shapes = recurrence.start(made), [], [], ""
    for t, token in enumerate(labels.queries):
        state, out = recurrence.step(state, tokens(made, slice(t, t + 1)))
        outputs.append(out)
        first = _first_tensor(state)
        shapes = shape(first)
        if t in (0, 1, len(labels.queries) - 1):
            panels.append(_state_panel(f"after {t + 1}, {token!r}", first[0, 0]))
    steps.append(Step(f"{labels.prefix}state", meaning(recurrence), shapes, panels, _sizes(state)))
    reason = None
    try:
        weights = recurrence.effective_weights(made, slice(None), slice(None))
        said = "signed, and no distribution: o_i = Σ_j w_ij v_j gives the output of the recurrence"
        past = torch.ones(weights.shape[-2:], dtype=torch.bool).tril()[None, None]
        steps.append(per_pair("effective weights", "o_i = Σ_j w_ij v_j", weights, labels, "signed", past, said))
    except NotObservable as error:
        reason = str(error)
    out = torch.cat(outputs, 2)
    steps.append(per_token("context", "o_t, read from the state after each token", out, labels.queries, labels))
    return Worked(steps, out, reason)


def _first_tensor(state: Any) -> Tensor:
    while not isinstance(state, Tensor):
        state = state[0]
    return state


def _state_panel(title: str, state: Tensor) -> Panel:
    rows, columns = ([str(place + 1) for place in range(size)] for size in state.shape)
    return Panel(title, rows, columns, cells(state), "numbers")


def _sizes(state: Any) -> str:
    def count(part: Any) -> int:
        return part[0].numel() if isinstance(part, Tensor) else sum(count(item) for item in part)

    return f"{count(state)} numbers in all, however long the text; head 1's first matrix is shown, key width down"


# ---- composites ------------------------------------------------------------------------------------------------------


@worked.register
def _of_sum(attention: Sum, x: Inputs, labels: Labels) -> Worked:
    steps: list[Step] = []
    outputs = []
    for number, branch in enumerate(attention.branches, 1):
        found = worked(branch, x, replace(labels, prefix=f"branch {number}, {branch.name}: "))
        steps += found.steps
        outputs.append(found.last)
    total = torch.stack(outputs, -1)
    if attention.gates is None:
        out = total.sum(-1)
    else:
        gates = attention.gates(x)
        said = "how much of each branch a query takes"
        steps.append(per_token("gates", "g_c(q), one column per branch", gates, labels.queries, labels, said))
        out = (total * gates[..., None, :]).sum(-1)
    weights, reason = _weights_step(attention, x, labels, "Σ_c g_c a^c")
    steps += [*weights, per_token("context", "o_i = Σ_c g_c(q_i) o^c_i", out, labels.queries, labels)]
    return Worked(steps, out, reason)


@worked.register
def _of_heads(attention: ByHead, x: Inputs, labels: Labels) -> Worked:
    steps: list[Step] = []
    outputs = []
    for part, mechanism in attention.parts:
        first, last, _ = part.indices(x.q.shape[1])
        which = f"head {first + 1}" if last == first + 1 else f"heads {first + 1} to {last}"
        found = worked(mechanism, heads_of(x, part), replace(labels, prefix=f"{which}, {mechanism.name}: "))
        steps += found.steps
        outputs.append(found.last)
    out = torch.cat(outputs, 1)
    labels = replace(labels, all_heads=True)
    steps.append(per_token("context", "every head's output, in order", out, labels.queries, labels))
    return Worked(steps, out)


@worked.register
def _of_low_rank(attention: LowRank, x: Inputs, labels: Labels) -> Worked:
    """The three softmaxes and the inverse between them, and the n × n product that is never formed in earnest."""
    x_q, x_k, count = widened(x.q), widened(x.k), attention.count
    q_marks, k_marks = segment_means(x_q, None, count), segment_means(x_k, None, count)
    marks = [f"mark{mark + 1}" for mark in range(count)]
    left, inverse, right = attention.factors(x, compose.Computed())
    inner = compose.weights(attention.kernel, inputs(q_marks, k_marks))
    weights = left @ inverse @ right
    heads = weights.shape[1] // x.k.shape[1]
    assert x.v is not None
    out = weights @ widened(x.v).repeat_interleave(heads, 1)
    to_marks, from_marks = replace(labels, keys=marks), replace(labels, queries=marks)
    between = replace(labels, queries=marks, keys=marks)
    steps = [
        per_token("landmark queries", "Q̃: means of segments", q_marks, marks, labels),
        per_token("landmark keys", "K̃: means of segments", k_marks, marks, labels),
        per_pair("queries on landmarks", "L = softmax(q K̃ᵀ / √Dk)", left, to_marks, "weights"),
        per_pair("landmarks on landmarks", "A = softmax(Q̃ K̃ᵀ / √Dk)", inner, between, "weights"),
        per_pair("inverse", "A⁺, by the paper's iteration (eq. 14)", inverse, between, "signed"),
        per_pair("landmarks on keys", "R = softmax(Q̃ Kᵀ / √Dk)", right, from_marks, "weights"),
        per_pair("weights", "W = L A⁺ R", weights, labels, "signed", said="never formed in use: L (A⁺ (R v)) is"),
        per_token("context", "o = W v", out, labels.queries, labels),
    ]
    return Worked(steps, out)
