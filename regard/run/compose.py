"""One call for every kind of attention: what is asked of a mechanism goes to a backend, what else there is asks for
mechanisms (`regard.protocol`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from regard.errors import UserError
from regard.inputs import Inputs, inputs
from regard.mechanism import Mechanism
from regard.protocol import Attention
from regard.recurrent.recurrence import CHUNK, Recurrence, State
from regard.run import choose, operator, reference, strips
from regard.run.arguments import accepted


def attend(attention: Attention, x: Inputs, backend: str = "auto") -> Tensor:
    """Output [B,H',Tq,Dv] in the query's type. Named backends are for mechanisms, and for the parts of composites."""
    if torch.compiler.is_compiling():
        return operator.attend(attention, x, backend)
    return attention.attend(x, Computed(backend))


def weights(attention: Attention, x: Inputs, rows: slice = slice(None), keys: slice = slice(None)) -> Tensor:
    """The weights [B,H',rows,keys] of a rectangle: o = Σ_j w_j v_j. Signed where `attention` is not a Mechanism.

    Raises NotObservable where no such weights exist, saying why.
    """
    return attention.weights(x, rows, keys, Computed())


@dataclass(frozen=True)
class Computed:
    """The Engine: outputs by a backend, rectangles by strips, whole matrices by the reference."""

    backend: str = "auto"

    def output(self, mechanism: Mechanism, x: Inputs) -> Tensor:
        return choose.attend(mechanism, x, self.backend)

    def rectangle(self, mechanism: Mechanism, x: Inputs, rows: slice, keys: slice) -> Tensor:
        return strips.rectangle(mechanism, x, rows, keys)

    def dense(self, mechanism: Mechanism, x: Inputs) -> Tensor:
        return reference.attend(mechanism.replace(mix=None), x)[1]

    def chunk(self, name: str) -> int:
        if self.backend not in ("auto", "strips", "reference"):
            raise UserError(f"backend {self.backend!r} cannot run {name}, a recurrence; use backend='auto'")
        return 1 if self.backend == "reference" else CHUNK


def recur(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mechanism: Attention | str,
    state: State | None = None,
    *,
    key_valid: Tensor | None = None,
    per_key: Mapping[str, Tensor] | None = None,
) -> tuple[Tensor, State]:
    """Attention by a recurrence, from a state to a state: a sequence may come in pieces, a token or a chunk at a time.

    state: what the call before gave back, or None at the beginning; tensors [B,H,…] (the record's documentation says
    which), which may ask for a gradient. Returns the output [B,H,T,Dv] in q's type and the state after the last token.
    The other arguments are those of `attention`. Raises UserError where the mechanism is no recurrence.
    """
    recurrence = resolved(mechanism)
    if not isinstance(recurrence, Recurrence):
        raise UserError(f"{recurrence.name} carries no state from token to token; use regard.attention")
    q, k, values = accepted(q, k, v)
    out, state = recurrence.recur(inputs(q, k, values, key_valid=key_valid, per_key=per_key), state)
    return out.to(q.dtype), state


@lru_cache(maxsize=512)
def _read(text: str) -> Attention:
    from regard.text import parse

    return parse(text)


def resolved(mechanism: Attention | str) -> Attention:
    """An attention as it is, or what its text form says."""
    if isinstance(mechanism, str):
        return _read(mechanism)
    if not callable(getattr(mechanism, "attend", None)):
        raise UserError(
            f"a mechanism is a record such as regard.zoo makes or a text such as 'causal & window(64)', "
            f"got {None if mechanism is None else type(mechanism).__name__}"
        )
    return mechanism
