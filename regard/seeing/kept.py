"""What `keep="qk"` keeps of one layer, from which any exact rectangle of its weights can be asked later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from regard import core
from regard.inputs import Inputs
from regard.mechanism import Mechanism
from regard.run.backend import Backend
from regard.run.strips import rectangle
from regard.seeing.store import Store
from regard.statistic import Axis


@dataclass(frozen=True, eq=False)
class OpenCall:
    """A call of a mechanism that is not in the closed core: its query rows, its first key's slot, its inputs."""

    rows: slice
    first_key: int
    mechanism: Mechanism
    x: Inputs


@dataclass(eq=False)
class Kept:
    """A store of the calls that core records can say, and the other calls themselves, which no file can hold.

    walks: the fused backends that compute a rectangle, in turn.
    """

    walks: Sequence[Backend] = ()
    store: Store = field(default_factory=Store)
    calls: list[OpenCall] = field(default_factory=list)

    def add(
        self, plan: core.Plan, rows: slice, first_key: int, state: tuple[Tensor | None, Tensor | None] = (None, None)
    ) -> None:
        """Keep one call of the closed core. state: its rows' maxima and log-sums, where they are known."""
        self.store.append(plan, rows, first_key, state)

    def add_open(self, rows: slice, first_key: int, mechanism: Mechanism, x: Inputs) -> None:
        """Keep another call, its values dropped. The keys of a growing cache are shared: a call whose keys begin at 0
        lends them to earlier ones."""
        k = x.k.clone()
        if first_key == 0:
            self.calls = [_lent(call, k) if call.first_key == 0 else call for call in self.calls]
        self.calls.append(OpenCall(rows, first_key, mechanism, x.replace(q=x.q.clone(), k=k, v=None)))

    @torch.no_grad()
    def rectangle(self, batch: int, head: int, rows: slice, keys: slice, axes: tuple[Axis, Axis]) -> Tensor:
        """Exact weights float32 [rows, keys] of one sequence and one head, by its index among those watched.

        axes: of queries and keys. Rows of padding are 0.
        """
        weights = self.store.rectangle(batch, head, rows, keys, axes, self.walks)
        for call in self.calls:
            begin, end = max(rows.start, call.rows.start), min(rows.stop, call.rows.stop)
            left, right = max(keys.start, call.first_key), min(keys.stop, call.first_key + call.x.k.shape[2])
            if begin < end and left < right:
                of = (
                    slice(begin - call.rows.start, end - call.rows.start),
                    slice(left - call.first_key, right - call.first_key),
                )
                cells = rectangle(call.mechanism, call.x, *of)[batch, head]
                weights[begin - rows.start : end - rows.start, left - keys.start : right - keys.start] = cells
        return weights * axes[0].valid[batch, rows, None].to(weights.device)


def _lent(call: OpenCall, k: Tensor) -> OpenCall:
    return OpenCall(call.rows, 0, call.mechanism, call.x.replace(k=k[:, :, : call.x.k.shape[2]]))
