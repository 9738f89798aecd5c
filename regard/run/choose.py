"""Which backend computes what: one table, for choosing, for errors, for `--verbose` and for docs/backends.md."""

from __future__ import annotations

import torch
from torch import Tensor

from regard import core
from regard.errors import UserError
from regard.evaluate import prepared
from regard.inputs import Inputs
from regard.lower import lower
from regard.mechanism import Mechanism
from regard.run import reference, strips
from regard.run.backend import Backend, Choice, Composition, PassedOver, Request, refusal, same_type
from regard.run.native import NATIVE
from regard.run.sdpa import SDPA
from regard.run.triton import TRITON

BACKENDS: dict[str, Backend] = {
    backend.name: backend for backend in (NATIVE, TRITON, SDPA, strips.STRIPS, reference.REFERENCE)
}
CPU = torch.device("cpu")


def attend(mechanism: Mechanism, x: Inputs, backend: str = "auto") -> Tensor:
    """Output [B,H,Tq,Dv] in the query's type. backend: "auto" for the first of BACKENDS that computes it, or a name.

    Raises UserError, naming the reason, where a named backend cannot.
    """
    return choose(mechanism, x, backend).output().to(x.q.dtype)


def choose(
    mechanism: Mechanism,
    x: Inputs,
    backend: str = "auto",
    watch: core.Watch | None = None,
    output: bool = True,
) -> Choice:
    """The backend that takes a call, the call in the form that it takes, and why not an earlier one.

    watch: core statistics to reduce in the same walk; a backend that is not closed shows its weights instead. output:
    whether the output is wanted. Raises UserError, naming the reason, where a named backend cannot.
    """
    if backend not in BACKENDS and backend != "auto":
        raise unknown_backend(backend)
    call, request = _request(mechanism, x, watch, output)
    reasons: dict[str, str] = {}
    for name in candidates(x.q.device) if backend == "auto" else (backend,):
        reason = refusal(name, BACKENDS[name].limits, request)
        if reason is None:
            passed_over = tuple(PassedOver(other, name, why) for other, why in reasons.items())
            return Choice(BACKENDS[name], passed_over, request.plan if BACKENDS[name].closed else call)
        reasons[name] = reason
    raise UserError(f"backend {backend!r} cannot compute {mechanism.name}: {reason}; use backend='auto'")


def explain(mechanism: Mechanism, x: Inputs, watch: core.Watch | None = None) -> list[tuple[str, str | None]]:
    """Every backend in the order in which "auto" tries them, with why it cannot compute this call, or None if it can.

    watch: core statistics to reduce in the same walk.
    """
    request = _request(mechanism, x, watch, True)[1]
    return [(name, refusal(name, backend.limits, request)) for name, backend in BACKENDS.items()]


def candidates(device: torch.device) -> list[str]:
    """The backends that "auto" tries there, in order."""
    return [name for name, backend in BACKENDS.items() if backend.device in (None, device.type)]


def observers(backend: str = "auto", device: torch.device = CPU) -> tuple[Backend, ...]:
    """The backends that reduce core statistics in their own walk, in the order to try them: the named one alone if it
    does."""
    able = (NATIVE, TRITON)
    named = tuple(one for one in able if one.name == backend)
    return named or tuple(one for one in able if one.device in (None, device.type))


def unknown_backend(name: str, *more: str) -> UserError:
    """The error for a backend that does not exist. more: names that the caller knows besides."""
    return UserError(f"no backend {name!r}; there are: {', '.join((*more, 'auto', *BACKENDS))}")


def _request(mechanism: Mechanism, x: Inputs, watch: core.Watch | None, output: bool) -> tuple[Composition, Request]:
    """The mechanism without its prepares with its inputs after them, and the two as a backend judges them."""
    ready, plain = same_type(prepared(mechanism, x)), mechanism.replace(prepare=()) if mechanism.prepare else mechanism
    needs_grad = output and torch.is_grad_enabled() and strips.requires_grad(plain, ready)
    return Composition(plain, ready), Request(lambda: lower(plain, ready), watch, needs_grad, ready.layout)
