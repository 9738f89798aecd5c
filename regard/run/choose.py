"""Which backend computes what: one table, for choosing, for errors, for `--verbose` and for docs/backends.md."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from regard import core
from regard.errors import UserError
from regard.evaluate import prepared
from regard.inputs import Inputs
from regard.lower import lower
from regard.mechanism import Mechanism
from regard.run import native, reference, sdpa, strips, triton
from regard.run.backend import DENSE, UNWATCHED, Limit, Observer, PassedOver, Request, refusal

CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class Backend:
    """A row of the table. computes: in a few words, for the docs. limits: all that it does not compute.

    run: output from a mechanism without prepares, its prepared inputs and the call as a Request. observer: the same
    backend where it also reduces weights in its own walk. device: the kind that "auto" takes it for, if only one.
    """

    computes: str
    limits: tuple[Limit, ...]
    run: Callable[[Mechanism, Inputs, Request], Tensor]
    observer: Observer | None = None
    device: str | None = None

    def serves(self, device: torch.device) -> bool:
        """Whether "auto" tries it there."""
        return self.device in (None, device.type)


@dataclass(frozen=True, eq=False)
class Choice:
    """The backend that was taken, by name; those that were passed over before it; what runs it."""

    taken: str
    passed_over: tuple[PassedOver, ...]
    run: Callable[[], Tensor]


def attend(mechanism: Mechanism, x: Inputs, backend: str = "auto") -> Tensor:
    """Output [B,H,Tq,Dv] in the query's type. backend: "auto" for the first of BACKENDS that computes it, or a name.

    Raises UserError, naming the reason, where a named backend cannot.
    """
    return choose(mechanism, x, backend).run().to(x.q.dtype)


def choose(mechanism: Mechanism, x: Inputs, backend: str = "auto") -> Choice:
    """The backend that `attend` would run, and why not an earlier one. Raises as `attend` does."""
    if backend not in BACKENDS and backend != "auto":
        raise unknown_backend(backend)
    plain, ready, request = _asked(mechanism, x, None)
    reasons: dict[str, str] = {}
    for name in candidates(ready.q.device) if backend == "auto" else (backend,):
        reason = refusal(name, BACKENDS[name].limits, request)
        if reason is None:
            passed_over = tuple(PassedOver(other, name, why) for other, why in reasons.items())
            return Choice(name, passed_over, partial(BACKENDS[name].run, plain, ready, request))
        reasons[name] = reason
    raise UserError(f"backend {backend!r} cannot compute {mechanism.name}: {reason}; use backend='auto'")


def explain(mechanism: Mechanism, x: Inputs, watch: core.Watch | None = None) -> list[tuple[str, str | None]]:
    """Every backend in the order in which "auto" tries them, with why it cannot compute this call, or None if it can.

    watch: core statistics to reduce in the same walk.
    """
    request = _asked(mechanism, x, watch)[2]
    return [(name, refusal(name, row.limits, request)) for name, row in BACKENDS.items()]


def candidates(device: torch.device) -> list[str]:
    """The backends that "auto" tries there, in order."""
    return [name for name, row in BACKENDS.items() if row.serves(device)]


def observers(backend: str = "auto", device: torch.device = CPU) -> tuple[Observer, ...]:
    """The backends that reduce weights in their own walk, in the order to try them: if the named one does, it alone."""
    found = {name: row.observer for name, row in BACKENDS.items() if row.observer is not None}
    if backend in found:
        return (found[backend],)
    return tuple(observer for name, observer in found.items() if BACKENDS[name].serves(device))


def unknown_backend(name: str, *more: str) -> UserError:
    """The error for a backend that does not exist. more: names that the caller knows besides."""
    return UserError(f"no backend {name!r}; there are: {', '.join((*more, 'auto', *BACKENDS))}")


def _asked(mechanism: Mechanism, x: Inputs, watch: core.Watch | None) -> tuple[Mechanism, Inputs, Request]:
    """The mechanism without its prepares, its inputs after them, and the two as a request."""
    ready, plain = of_one_type(prepared(mechanism, x)), mechanism.replace(prepare=())
    needs_grad = torch.is_grad_enabled() and strips.requires_grad(plain, ready)
    return plain, ready, Request(lambda: lower(plain, ready), watch, needs_grad)


def of_one_type(x: Inputs) -> Inputs:
    """Queries, keys and values in the widest of their types: a prepare may have widened some."""
    tensors = [t for t in (x.q, x.k, x.v) if t is not None]
    if len({t.dtype for t in tensors}) == 1:
        return x
    widest = tensors[0].dtype
    for tensor in tensors[1:]:
        widest = torch.promote_types(widest, tensor.dtype)
    return x.replace(q=x.q.to(widest), k=x.k.to(widest), v=None if x.v is None else x.v.to(widest))


def _strips(mechanism: Mechanism, x: Inputs, request: Request) -> Tensor:
    out = strips.attend(mechanism, x)
    assert out is not None
    return out


def _reference(mechanism: Mechanism, x: Inputs, request: Request) -> Tensor:
    out, _ = reference.attend(mechanism, x)
    if out is None:
        raise ValueError(f"{mechanism.name} has no output: its weights are the result; ask for regard.weights")
    return out


BACKENDS: dict[str, Backend] = {
    "native": Backend(
        "the closed core in C++ on the CPU, with its statistics in the same walk",
        native.LIMITS,
        lambda mechanism, x, request: native.attention(request.plan),
        native.NATIVE,
        "cpu",
    ),
    "triton": Backend(
        "the closed core on NVIDIA GPUs, with its statistics in a second walk",
        triton.LIMITS,
        lambda mechanism, x, request: triton.attention(request.plan),
        triton.TRITON,
        "cuda",
    ),
    "sdpa": Backend(
        "a scaled dot product by torch's fused kernels",
        sdpa.LIMITS,
        lambda mechanism, x, request: sdpa.attention(request.plan),
    ),
    "strips": Backend("everything in torch, rows by rows, without an n × n matrix", (DENSE,), _strips),
    "reference": Backend("everything in torch, densely; it defines the answer", (UNWATCHED, DENSE), _reference),
}
