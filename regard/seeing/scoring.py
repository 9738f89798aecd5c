"""How rows of a stored layer were scored, as data: terms, sink and visible keys; cut to windows; to and from JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from regard import core
from regard.core.ranges import Ranges
from regard.growing import Growing

NOTHING = torch.iinfo(torch.int32).max
KINDS: dict[str, type] = {
    kind.__name__: kind for kind in (core.Dot, core.KeyBias, core.Slope, core.Distance, core.Table, core.Softcap)
}


@dataclass(frozen=True)
class Window:
    """Rows × keys of one head of one sequence, by slots; group: its key-value head."""

    batch: int
    head: int
    group: int
    rows: slice
    keys: slice


@dataclass(eq=False)
class Scoring:
    """The rows begin … end-1: their terms, whose columns are the key slots first_key … last_key-1; sink; what they see.

    start, stop: int32 [batch or 1, heads or 1, rows, intervals], visible key slots; an unused interval is empty.
    """

    begin: int
    end: int
    first_key: int
    last_key: int
    terms: tuple[core.Term, ...]
    sink: Tensor | None
    start: Growing
    stop: Growing

    @staticmethod
    def of(plan: core.Plan, rows: slice, first_key: int) -> Scoring:
        start, stop = plan.ranges.start, plan.ranges.stop
        unused = start >= stop
        table = [
            Growing(torch.where(unused, NOTHING, side + first_key), (rows.start, 0), NOTHING) for side in (start, stop)
        ]
        return Scoring(
            rows.start, rows.stop, first_key, first_key + plan.k.shape[2], plan.terms, plan.softmax.sink, *table
        )

    def extend(self, other: Scoring) -> bool:
        """Take in the rows that follow, if they are scored alike; whether they were."""
        terms = _together(self, other)
        if terms is None or other.begin != self.end:
            return False
        self.terms, self.end = terms, other.end
        self.first_key, self.last_key = min(self.first_key, other.first_key), max(self.last_key, other.last_key)
        self.start, self.stop = _appended(self.start, other.start), _appended(self.stop, other.stop)
        return True

    def ranges(self, w: Window) -> Ranges:
        """What the window's rows see of its keys, counted from the window's first."""
        num_keys = w.keys.stop - w.keys.start
        sides = []
        for side in (self.start, self.stop):
            table = side.live()
            batch, head = min(w.batch, table.shape[0] - 1), min(w.head, table.shape[1] - 1)
            rows = table[batch, head, w.rows.start - self.begin : w.rows.stop - self.begin]
            sides.append((rows.clamp(w.keys.start, w.keys.stop) - w.keys.start)[None, None])
        return Ranges(sides[0], sides[1], num_keys)

    def cut(self, w: Window) -> tuple[core.Term, ...]:
        """The terms of a window, as those of one head."""
        return tuple(self._cut(term, w) for term in self.terms)

    def _cut(self, term: core.Term, w: Window) -> core.Term:
        keys = slice(w.keys.start - self.first_key, w.keys.stop - self.first_key)
        rows = slice(w.rows.start - self.begin, w.rows.stop - self.begin)
        match term:
            case core.Dot(scale=Tensor() as scale) if scale.numel() > 1:
                return core.Dot(float(scale.flatten()[w.head]))
            case core.KeyBias(bias=bias):
                return core.KeyBias(_pick(_pick(bias, 0, w.batch), 1, w.head)[..., keys])
            case core.Slope(slope=slope):
                return core.Slope(slope.flatten()[w.head : w.head + 1])
            case core.Distance(table=table):
                return core.Distance(_pick(table, 0, w.head))
            case core.Table(bias=bias):
                part = _pick(_pick(bias, 0, w.batch), 1, w.head)[..., keys]
                return core.Table(part if part.shape[2] == 1 else part[:, :, rows])
        return term

    # ---- to and from a file -------------------------------------------------------------------------------------

    def saved(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Everything but tensors, as JSON, and the tensors by name."""
        tensors = {"start": self.start.live(), "stop": self.stop.live()}
        if self.sink is not None:
            tensors["sink"] = self.sink
        terms: list[dict[str, Any]] = []
        for number, term in enumerate(self.terms):
            terms.append({"kind": type(term).__name__})
            for name, value in vars(term).items():
                if isinstance(value, Tensor):
                    tensors[f"term {number} {name}"] = value
                else:
                    terms[-1][name] = value
        return {"rows": [self.begin, self.end], "keys": [self.first_key, self.last_key], "terms": terms}, tensors

    @staticmethod
    def read(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Scoring:
        (begin, end), (first_key, last_key) = about["rows"], about["keys"]
        terms = []
        for number, said in enumerate(about["terms"]):
            kind = KINDS[said["kind"]]
            values = {f.name: tensors.get(f"term {number} {f.name}", said.get(f.name)) for f in fields(kind)}
            terms.append(kind(**values))
        start, stop = (Growing(tensors[side], (begin, 0), NOTHING) for side in ("start", "stop"))
        return Scoring(begin, end, first_key, last_key, tuple(terms), tensors.get("sink"), start, stop)


def _pick(tensor: Tensor, dim: int, index: int) -> Tensor:
    """One of a dimension that may be shared by all, kept."""
    return tensor if tensor.shape[dim] == 1 else tensor.narrow(dim, index, 1)


def _appended(a: Growing, b: Growing) -> Growing:
    """Tables of intervals one after the other; what one shares between sequences or heads is repeated if it must be."""
    one, other = a.live(), b.live()
    shape = [max(x, y) for x, y in zip(one.shape[:2], other.shape[:2], strict=True)]
    if list(one.shape[:2]) != shape:
        a = Growing(one.expand(*shape, -1, -1), a.begin, a.fill)
    return a.join(Growing(other.expand(*shape, -1, -1), b.begin, b.fill), "set")


def _together(a: Scoring, b: Scoring) -> tuple[core.Term, ...] | None:
    """The terms of both, if they are the same; a bias per key may have become longer."""
    same_sink = a.sink is b.sink or (a.sink is not None and b.sink is not None and torch.equal(a.sink, b.sink))
    if len(a.terms) != len(b.terms) or not same_sink:
        return None
    terms: list[core.Term] = []
    for one, other in zip(a.terms, b.terms, strict=True):
        if isinstance(one, core.KeyBias) and isinstance(other, core.KeyBias) and a.first_key == b.first_key:
            known = one.bias.shape[-1]
            if other.bias.shape[:2] == one.bias.shape[:2] and torch.equal(other.bias[..., :known], one.bias):
                terms.append(other)
                continue
        if type(one) is not type(other) or isinstance(one, core.Table | core.KeyBias) or not _equal(one, other):
            return None
        terms.append(one)
    return tuple(terms)


def _equal(one: core.Term, other: core.Term) -> bool:
    for x, y in zip(vars(one).values(), vars(other).values(), strict=True):
        if isinstance(x, Tensor) != isinstance(y, Tensor):
            return False
        if not (torch.equal(x, y) if isinstance(x, Tensor) and x is not y else x is y or x == y):
            return False
    return True
