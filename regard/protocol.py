"""What everything that attends offers, whatever kind it is: a mechanism, a recurrence, a sum of several, your own.

A record says what it computes of what; it never says how. How a mechanism's parts are computed comes from above, as an
Engine that the call hands down (`regard.run.compose`), so that meaning stays below running. A new kind of attention is
a record with these methods in any room; nothing that runs, explains or trains attention has a list of kinds.
"""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from regard.errors import UserError
from regard.inputs import Inputs


class NotObservable(UserError):
    """These weights do not exist, and why."""


class Engine(Protocol):
    """How mechanisms are computed. A composite asks it for the outputs and weights of what it is made of."""

    def output(self, mechanism: Any, x: Inputs) -> Tensor:
        """The output [B,H',Tq,Dv] of a Mechanism."""

    def rectangle(self, mechanism: Any, x: Inputs, rows: slice, keys: slice) -> Tensor:
        """The weights [B,H',rows,keys] of a Mechanism."""

    def dense(self, mechanism: Any, x: Inputs) -> Tensor:
        """All weights [B,H',Tq,Tk] of a Mechanism at once, with their graph: for few queries or few keys."""

    def chunk(self, name: str) -> int:
        """How many tokens of a recurrence are computed at once; 1 computes its steps."""


class Attention(Protocol):
    """Whatever attends. name: its standard name; source: paper and equation."""

    @property
    def name(self) -> str: ...

    @property
    def source(self) -> str: ...

    @property
    def is_causal(self) -> bool:
        """Whether no token sees a later one, as far as can be told without inputs."""

    def attend(self, x: Inputs, engine: Engine) -> Tensor:
        """The output [B,H',Tq,Dv]."""

    def weights(self, x: Inputs, rows: slice, keys: slice, engine: Engine) -> Tensor:
        """The weights [B,H',rows,keys] with o = Σ_j w_j v_j; raises NotObservable where there are none."""

    def masked(self, mask: Any) -> Attention:
        """The same, seeing only what this mask allows as well; raises UserError where no mask can be applied."""

    def composition(self) -> tuple[tuple[str, Any], ...]:
        """(role, part) of all that it is made of, in order: its own parts, or other attentions."""
