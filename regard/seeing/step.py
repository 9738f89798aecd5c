"""One step of a model: what its layers' calls have in common, checked and restated once for all of them.

Layers differ in queries, keys and values. Where their mechanism, masks, axes and shapes agree, so do the plan but for
these tensors, the records that statistics ask for, and the backend that takes both.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from torch import Tensor

from regard import core
from regard.inputs import Inputs
from regard.lower import lower, reusable
from regard.mechanism import Mechanism
from regard.run.backend import Backend, PassedOver
from regard.seeing.asked import Asked
from regard.statistic import View


@dataclass(frozen=True, eq=False)
class Step:
    """A call with what is asked of it. lowered: in core records, or why not; backend: who takes it with its watch.

    backend is None where strips must; passed_over: the fused backends that do not take it, and why.
    """

    lowered: core.Plan | core.Refusal
    watch: core.Watch | None
    backend: Backend | None
    passed_over: frozenset[PassedOver]

    def over(self, x: Inputs, output: bool) -> Step:
        """The same for another layer's tensors."""
        if isinstance(self.lowered, core.Refusal):
            return self
        plan = self.lowered.over(x.q, x.k, x.v if output else None)
        return Step(plan, self.watch, self.backend, self.passed_over)


@dataclass(frozen=True, eq=False)
class Where:
    """Where a call lies: its query rows on the view, the slot of its first key."""

    view: View
    rows: slice
    first_key: int


def step(
    mechanism: Mechanism,
    x: Inputs,
    at: Where,
    wanted: Asked,
    backends: Sequence[Backend],
    keep: bool,
    key_scale: Tensor | None = None,
) -> Step:
    """The step of a call without prepares, made anew or that of an earlier layer.

    keep: its row states are wanted. key_scale: ‖v_j W_O‖ float32 [B,H,Tk], or None for plain weights.
    """
    output = mechanism.mix is not None and x.v is not None
    what = None if key_scale is not None else _what(mechanism, x, at, wanted, backends, keep)
    if what is None:
        return _made(mechanism, x, at, wanted, backends, keep, key_scale)
    by_query: WeakKeyDictionary[object, dict[Hashable, tuple[object, Step]]]
    by_query = at.view.key.once("steps, by query axis", WeakKeyDictionary)
    kept = by_query.setdefault(at.view.query, {})
    if what not in kept:
        made = _made(mechanism, x, at, wanted, backends, keep)
        kept[what] = (x.allowed, wanted), made  # what is known by its id lives as long as the entry
    return kept[what][1].over(x, output)


def _what(
    mechanism: Mechanism, x: Inputs, at: Where, wanted: Asked, backends: Sequence[Backend], keep: bool
) -> Hashable | None:
    """What makes two calls one step; None where a call must be looked at alone."""
    if not reusable(mechanism) or x.key_valid is not None or x.per_query or x.per_key:
        return None
    q, k, v = x.q, x.k, x.v
    positions = (
        x.query_positions.data_ptr(),
        x.key_positions.data_ptr(),
        x.query_positions.shape,
        x.key_positions.shape,
    )
    shapes = (q.shape, k.shape, q.stride(), k.stride(), q.dtype, k.dtype, q.device, k.device)
    values = None if v is None else (v.shape, v.stride(), v.dtype)
    stated = (*mechanism.score, mechanism.mask, mechanism.normaliser, *mechanism.adjust, mechanism.mix)
    parts = tuple((type(part), *vars(part).values()) for part in stated if part is not None)
    what = (parts, positions, shapes, values, at.rows.start, at.first_key, id(x.allowed), id(wanted), *backends, keep)
    try:
        hash(what)
    except TypeError:  # a part holds a list
        return None
    return what


def _made(
    mechanism: Mechanism,
    x: Inputs,
    at: Where,
    wanted: Asked,
    backends: Sequence[Backend],
    keep: bool,
    key_scale: Tensor | None = None,
) -> Step:
    lowered = lower(mechanism, x) if backends or keep else core.Refusal("backend", "there is none to lower for")
    watch = core.Watch(wanted.records, key_scale, wanted.counted) if wanted.records else None
    reasons = {f"{s.label}: is a statistic with no form in the core vocabulary" for s in wanted.open}
    passed_over = {PassedOver(b.name, "strips", why) for b in backends for why in reasons}
    if not (wanted.records or (keep and not wanted.open)):
        return Step(lowered, None, None, frozenset(passed_over))
    if wanted.records and (at.first_key != 0 or x.k.shape[2] != at.view.key.length):
        why = "keys: are a part of their axis, and weights are reduced along all of it"
        return Step(
            lowered, watch, None, frozenset(passed_over | {PassedOver(b.name, "strips", why) for b in backends})
        )
    refused: list[tuple[Backend, str]] = []
    for backend in backends:
        why_not = str(lowered) if isinstance(lowered, core.Refusal) else backend.refuses(lowered, watch)
        if why_not is None:
            passed_over |= {PassedOver(other.name, backend.name, why) for other, why in refused}
            return Step(lowered, watch, backend, frozenset(passed_over))
        refused.append((backend, why_not))
    passed_over |= {PassedOver(other.name, "strips", why) for other, why in refused}
    return Step(lowered, watch, None, frozenset(passed_over))
