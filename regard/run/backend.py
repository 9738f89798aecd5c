"""The Backend: one way to compute attention, as a record of its limits and one `walk`.

A limit is data for four readers: the choice of a backend, the error of a named one that cannot, `--verbose`, and
docs/backends.md. What is not limited is computed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from regard import core
from regard.core.layout import DENSE, Layout, Packed
from regard.errors import UserError
from regard.inputs import Inputs
from regard.mechanism import Mechanism
from regard.run.gradients import ROWS, wants_grad
from regard.run.output import Output

CONCERNS = (
    "machine",
    "mechanism",
    "devices",
    "dtypes",
    "memory layout",
    "score terms",
    "masks",
    "softmax sink",
    "widths",
    "positions",
    "gradients",
    "statistics",
    "packed documents",
)

Absorb = Callable[[slice, slice, Tensor, Tensor | None], None]
"""Takes (rows, keys, weights [B,H',rows,keys], allowed bool or None for all) of each strip, once. In a packed layout
rows and keys count the tokens of all documents, and a strip lies within one of them."""


@dataclass(frozen=True, eq=False)
class Composition:
    """A call in the open surface: a mechanism without prepares and its prepared inputs."""

    mechanism: Mechanism
    x: Inputs

    def over(self, q: Tensor, k: Tensor, v: Tensor | None) -> Composition:
        """The same call on other tensors of the same shapes, types and device."""
        return Composition(self.mechanism, self.x.replace(q=q, k=k, v=v))


@dataclass(frozen=True, eq=False)
class Request:
    """One call as a backend judges it. lowered: gives the call in core records, or why it has no such form.

    needs_grad: whether anything that the output depends on asks for a gradient. layout: how its tokens lie.
    """

    lowered: Callable[[], core.Plan | core.Refusal]
    watch: core.Watch | None = None
    needs_grad: bool = False
    layout: Layout = DENSE

    @cached_property
    def closed(self) -> core.Plan | core.Refusal:
        """The call in core records or why not, lowered once and only if a limit asks."""
        return self.lowered()

    @property
    def plan(self) -> core.Plan:
        """The call in core records, for the limits that come after `CLOSED`."""
        assert isinstance(self.closed, core.Plan)
        return self.closed

    @property
    def statistics(self) -> tuple[core.CoreStatistic, ...]:
        """What is watched."""
        return () if self.watch is None else self.watch.statistics

    @property
    def num_documents(self) -> int:
        """Documents of a packed layout, 0 for a dense one."""
        return self.layout.num_documents if isinstance(self.layout, Packed) else 0


@dataclass(frozen=True)
class Limit:
    """Something that a backend does not compute.

    what: one of CONCERNS. reason: what it does instead, a clause to follow its name: "takes float32". hit: what in a
    request breaks the limit, as "part: is so"; None for a request within it.
    """

    what: str
    reason: str
    hit: Callable[[Request], str | None]

    def __post_init__(self) -> None:
        assert self.what in CONCERNS, self.what


def refusal(name: str, limits: tuple[Limit, ...], request: Request) -> str | None:
    """Why the backend of this name and these limits cannot compute a request: its first limit hit; None if it can."""
    for limit in limits:
        broken = limit.hit(request)
        if broken is not None:
            return f"{broken}; {name} {limit.reason}"
    return None


@dataclass(frozen=True, eq=False)
class Backend:
    """A way to compute attention. computes: in a few words, for the docs. limits: all that it does not compute.

    walk: one pass over a call within the limits, which it trusts: (call, watch, whether an output is wanted) → Output;
    rows' states come beside an output only where there is a watch, be it empty.
    closed: it takes a core.Plan and a core.Watch; otherwise a Composition, and an Absorb that is shown the weights.
    device: the kind that "auto" takes it for, if only one.
    """

    name: str
    computes: str
    limits: tuple[Limit, ...]
    walk: Callable[[Any, Any, bool], Output]
    closed: bool = True
    device: str | None = None

    def refuses(self, plan: core.Plan, watch: core.Watch | None = None, needs_grad: bool = False) -> str | None:
        """Why a plan cannot run here: the part that stands in the way, and the limit; None if it can."""
        return refusal(self.name, self.limits, Request(lambda: plan, watch, needs_grad, plan.layout))

    def run(self, plan: core.Plan, watch: core.Watch | None = None, output: bool = True) -> Output:
        """`walk` after the limits were checked, with the rows' states. Raises UserError where one is hit."""
        reason = self.refuses(plan, watch, output and wants_grad(plan))
        if reason is not None:
            raise UserError(f"backend {self.name!r} cannot run this: {reason}")
        return self.walk(plan, ROWS if watch is None else watch, output)


@dataclass(frozen=True, order=True)
class PassedOver:
    """A backend that was not taken, the name of the one that was, and why."""

    backend: str
    taken: str
    reason: str


@dataclass(frozen=True, eq=False)
class Choice:
    """A call that was checked for the backend that takes it: `walk` computes it, as often as it is wanted."""

    backend: Backend
    passed_over: tuple[PassedOver, ...]
    call: core.Plan | Composition

    @property
    def taken(self) -> str:
        """The backend's name."""
        return self.backend.name

    def walk(self, watch: core.Watch | Absorb | None = None, output: bool = True) -> Output:
        """What the backend gives. watch: as in `choose`, in the form that the backend takes."""
        return self.backend.walk(self.call, watch, output)

    def output(self) -> Tensor:
        """The output alone, as the backend gives it."""
        out = self.backend.walk(self.call, None, True).out
        assert out is not None
        return out

    def over(self, q: Tensor, k: Tensor, v: Tensor | None) -> Choice:
        """The same call on other prepared tensors of the same shapes, types and device: per layer, per step."""
        other = object.__new__(Choice)
        other.__dict__.update(self.__dict__, call=self.call.over(q, k, v))
        return other


# ---- limits that several backends share -----------------------------------------------------------------------------

CLOSED = Limit(
    "mechanism",
    "computes dot products with biases and a softcap, intervals of keys, and a softmax",
    lambda request: str(request.closed) if isinstance(request.closed, core.Refusal) else None,
)
UNWATCHED = Limit(
    "statistics",
    "reduces no weights",
    lambda request: "Watch: asks for statistics" if request.watch is not None else None,
)
DENSE_ONLY = Limit(
    "packed documents",
    "takes dense tensors, a document at a time",
    lambda request: f"{type(request.layout).__name__}: packs documents" if request.num_documents else None,
)


def all_tensors(plan: core.Plan) -> dict[str, Tensor]:
    """q, k and v by name, v where there is one."""
    return {"q": plan.q, "k": plan.k} | ({} if plan.v is None else {"v": plan.v})


def same_type(x: Inputs) -> Inputs:
    """Queries, keys and values in the widest of their types: a prepare may have widened some."""
    tensors = [t for t in (x.q, x.k, x.v) if t is not None]
    if all(t.dtype == x.q.dtype for t in tensors):
        return x
    widest = tensors[0].dtype
    for tensor in tensors[1:]:
        widest = torch.promote_types(widest, tensor.dtype)
    return x.replace(q=x.q.to(widest), k=x.k.to(widest), v=None if x.v is None else x.v.to(widest))
