"""What an engine hands back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

Result = Tensor | tuple[Tensor, ...]
"""What one watched record gives."""


@dataclass(eq=False, slots=True)
class Output:
    """The result of one attention call.

    out [B,H,Tq,Dv], or None where it was not asked for. row_max and row_log_sum [B,H,Tq], for a softmax: the largest
    visible score (sink not counted) and log Σ e^(s - row_max) with the sink's term; so that a weight is exactly
    exp((s - row_max) - row_log_sum). A row that sees nothing has row_max = -inf and row_log_sum = 0.
    statistics: what each record of the watch gives, in its order.
    """

    out: Tensor | None
    row_max: Tensor | None = None
    row_log_sum: Tensor | None = None
    statistics: Sequence[Result] = ()

    @property
    def lse(self) -> Tensor | None:
        """log Σ e^s (natural logarithm, sink included), -inf for a row that sees nothing. For people: recomputing
        weights from it loses digits at large scores."""
        if self.row_max is None or self.row_log_sum is None:
            return None
        return self.row_max + self.row_log_sum
