"""What a backend is to the rest: a row of the table in choose.py, with the list of its limits.

A limit is data for four readers: the choice of a backend, the error of a named one that cannot, `--verbose`, and
docs/backends.md. What is not limited is computed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from torch import Tensor

from regard import core
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


@dataclass(frozen=True, eq=False)
class Request:
    """One call as a backend judges it. lowered: gives the call in core records, or why it has no such form.

    needs_grad: whether anything that the output depends on asks for a gradient. documents: how many lie side by side in
    the tokens (layout.Ragged), 0 for a dense call.
    """

    lowered: Callable[[], core.Plan | core.Refusal]
    watch: core.Watch | None = None
    needs_grad: bool = False
    documents: int = 0

    @cached_property
    def given(self) -> core.Plan | core.Refusal:
        """The call in core records or why not, found out once and only if a limit asks."""
        return self.lowered()

    @property
    def plan(self) -> core.Plan:
        """The call in core records, for the limits that come after `CLOSED`."""
        assert isinstance(self.given, core.Plan)
        return self.given


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
        found = limit.hit(request)
        if found is not None:
            return f"{found}; {name} {limit.reason}"
    return None


@dataclass(frozen=True, order=True)
class PassedOver:
    """A backend that was not taken, the name of the one that was, and why."""

    backend: str
    taken: str
    reason: str


class Observer(Protocol):
    """A fast backend that reduces weights without handing them out."""

    @property
    def name(self) -> str: ...

    def refuses(self, plan: core.Plan, watch: core.Watch | None, needs_grad: bool) -> str | None: ...

    def run(self, plan: core.Plan, watch: core.Watch | None = None, output: bool = True) -> Output: ...


# ---- limits that several backends share -----------------------------------------------------------------------------

CLOSED = Limit(
    "mechanism",
    "takes what restates itself in the closed core",
    lambda request: str(request.given) if isinstance(request.given, core.Refusal) else None,
)
UNWATCHED = Limit(
    "statistics",
    "reduces no weights",
    lambda request: "Watch: asks for statistics" if request.watch is not None else None,
)
DENSE = Limit(
    "packed documents",
    "takes dense tensors, a document at a time",
    lambda request: "Ragged: packs documents" if request.documents else None,
)


def all_tensors(plan: core.Plan) -> dict[str, Tensor]:
    """q, k and v by name, v where there is one."""
    return {"q": plan.q, "k": plan.k} | ({} if plan.v is None else {"v": plan.v})
