"""Kept queries and keys of one layer, from which any exact rectangle of its weights can be asked later."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from regard.inputs import Inputs
from regard.mechanism import Mechanism
from regard.run.strips import rectangle


@dataclass(eq=False)
class Kept:
    """The calls of a layer in order: which rows, the mechanism, and its inputs (values dropped)."""

    calls: list[tuple[slice, int, Mechanism, Inputs]] = field(default_factory=list)

    def add(self, rows: slice, first_key: int, mechanism: Mechanism, x: Inputs) -> None:
        """Keep one call. The keys of a growing cache are shared: a call whose keys begin at 0 lends them to earlier
        ones."""
        k = x.k.clone()
        if first_key == 0:
            self.calls = [(r, f, m, e.replace(k=k[:, :, : e.k.shape[2]]) if f == 0 else e) for r, f, m, e in self.calls]
        self.calls.append((rows, first_key, mechanism, x.replace(q=x.q.clone(), k=k, v=None)))

    @torch.no_grad()
    def rectangle(self, batch: int, place: int, rows: slice, keys: slice) -> Tensor:
        """Exact weights float32 [rows, keys] of one sequence and head place."""
        found = torch.zeros(rows.stop - rows.start, keys.stop - keys.start)
        for seen, first_key, mechanism, x in self.calls:
            begin, end = max(rows.start, seen.start), min(rows.stop, seen.stop)
            left, right = max(keys.start, first_key), min(keys.stop, first_key + x.k.shape[2])
            if begin < end and left < right:
                part = slice(begin - seen.start, end - seen.start), slice(left - first_key, right - first_key)
                cells = rectangle(mechanism, x, *part)[batch, place]
                found[begin - rows.start : end - rows.start, left - keys.start : right - keys.start] = cells
        return found
