"""Several attentions, gated and added."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from regard.errors import UserError
from regard.evaluate import prepared
from regard.inputs import Inputs
from regard.mechanism import Mechanism
from regard.protocol import Attention, Engine, NotObservable

Gates = Callable[[Inputs], Tensor]
"""Inputs -> [B,H,Tq,branches]: how much of each branch a query takes."""


@dataclass(frozen=True, eq=False)
class Sum:
    """o = Σ_c g_c(q) · o_c: several attentions, gated and added. gates None: all 1.

    A branch may see other keys than the next (compressed blocks, a memory).
    """

    name: str
    source: str
    branches: tuple[Attention, ...]
    gates: Gates | None = None

    def __post_init__(self) -> None:
        if not self.branches:
            raise UserError(f"{self.name} has no branches; give at least one attention to sum")

    @property
    def is_causal(self) -> bool:
        return all(branch.is_causal for branch in self.branches)

    def attend(self, x: Inputs, engine: Engine) -> Tensor:
        return self._added([branch.attend(x, engine) for branch in self.branches], x, slice(None))

    def weights(self, x: Inputs, rows: slice, keys: slice, engine: Engine) -> Tensor:
        for branch in self.branches:
            if isinstance(branch, Mechanism) and _other_keys(branch, x):
                raise NotObservable(
                    f"{self.name} has no single matrix of weights: its branch {branch.name} attends to other keys "
                    "than the tokens; ask each branch"
                )
        return self._added([branch.weights(x, rows, keys, engine) for branch in self.branches], x, rows)

    def _added(self, results: list[Tensor], x: Inputs, rows: slice) -> Tensor:
        """Σ_c g_c · result_c of some query rows."""
        if self.gates is None:
            return torch.stack(results).sum(0)
        gates = self.gates(x)
        if gates.shape[-1] != len(results):
            raise UserError(f"{self.name} has {len(results)} branches, and its gates {list(gates.shape)}")
        return (torch.stack(results, -1) * gates[:, :, rows, None, :].to(results[0].dtype)).sum(-1)

    def masked(self, mask: Any) -> Sum:
        return replace(self, branches=tuple(branch.masked(mask) for branch in self.branches))

    def composition(self) -> tuple[tuple[str, Any], ...]:
        return tuple(("branch", branch) for branch in self.branches)

    def __str__(self) -> str:
        return self.name


def _other_keys(mechanism: Mechanism, x: Inputs) -> bool:
    seen = prepared(mechanism, x)
    return seen.key_axis == "slots" or seen.k.shape[2] != x.k.shape[2]
