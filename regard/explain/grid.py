"""Tensors as the plain numbers of a panel."""

from __future__ import annotations

from torch import Tensor


def cells(values: Tensor, allowed: Tensor | None = None) -> list[list[float | None]]:
    """Rows of plain numbers, None where a pair is hidden."""
    found: list[list[float | None]] = values.detach().double().tolist()
    if allowed is None:
        return found
    flags = allowed.expand_as(values).tolist()
    return [[v if seen else None for v, seen in zip(row, flag)] for row, flag in zip(found, flags)]
