"""Attention over the pages of rows: every key-value head of every sequence is a sequence of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from regard import core
from regard.core.layout import Paged
from regard.inputs import packed_inputs
from regard.mechanism import Mechanism
from regard.parts.masks import causal
from regard.run import choose
from regard.swap.cache.pages import PAGE_SIZE, HeadPages


def walked(
    mechanism: Mechanism, q: Tensor, pages: HeadPages, table: Tensor, lengths: Tensor, reads_mass: bool
) -> tuple[Tensor, Tensor | None]:
    """(output [rows,heads,Tq,Dv], the weight that each slot received [rows,slots], if it is read).

    q [rows,heads,Tq,D]: the newest tokens of each row. The weight is averaged over the heads of a row.
    """
    count = q.shape[2]
    starts = torch.arange(0, count * len(lengths) + 1, count, dtype=torch.int32, device=q.device)
    layout = Paged(table.to(torch.int32), lengths.to(torch.int32), PAGE_SIZE, starts)
    meant = mechanism.masked(causal()) if count > 1 else mechanism
    x = packed_inputs(q.transpose(1, 2).flatten(0, 1), pages.keys, pages.values, layout)
    watch = core.Watch((core.ColumnMass(),)) if reads_mass else None
    choice = choose.choose(meant, x, "auto", watch)
    masses = torch.zeros(int(lengths.sum()), dtype=torch.float64, device=q.device) if reads_mass else None
    if masses is None or choice.backend.closed:
        result = choice.walk(watch)
        if masses is not None:
            mass = result.statistics[0]
            assert isinstance(mass, Tensor)
            masses = mass[0].mean(0)
    else:

        def absorb(rows: slice, keys: slice, weights: Tensor, allowed: Tensor | None) -> None:
            masses[keys] += weights[0].sum(1, dtype=torch.float64).mean(0)

        result = choice.walk(absorb)
    assert result.out is not None
    out = result.out[0].transpose(0, 1).unflatten(0, (-1, count)).transpose(1, 2).to(q.dtype)
    return out, None if masses is None else _by_row(masses, lengths, pages.positions.shape[1])


def _by_row(masses: Tensor, lengths: Tensor, slots: int) -> Tensor:
    """[keys of all rows] as [rows, slots]."""
    row = torch.arange(len(lengths), device=masses.device).repeat_interleave(lengths)
    slot = torch.arange(len(row), device=masses.device) - (lengths.cumsum(0) - lengths)[row]
    found = masses.new_zeros(len(lengths), slots)
    found[row, slot] = masses
    return found
