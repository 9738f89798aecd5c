"""Mass on the keys that match a row: the token before it, its own token elsewhere, what followed that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from regard import core
from regard.growing import Growing
from regard.seeing.statistics.kinds import SAME_AXIS, SAME_TOKENS
from regard.statistic import Axis, Block, Need, RowStatistic, View, Walked


@dataclass(frozen=True)
class PreviousToken(RowStatistic):
    """a_{i,i-1}: mass on the token before; the head's score is its mean over rows that have one."""

    name: ClassVar[str] = "previous"
    formula: ClassVar[str] = "Σ_j a_ij [p_j = p_i - 1]"
    title: ClassVar[str] = "previous token"
    order: ClassVar[int] = 100
    needs: ClassVar[frozenset[Need]] = SAME_AXIS

    def of_rows(self, block: Block, view: View) -> Tensor:
        return (block.weights * shifted(block, -1)).sum(-1)

    def core(self, view: View, rows: slice) -> tuple[core.CoreStatistic, ...]:
        return (at_distance(view, rows, -1),)

    def counted_rows(self, view: View) -> Tensor:
        return view.query.valid & (view.query.positions > 0)


@dataclass(frozen=True)
class DuplicateToken(RowStatistic):
    """Mass on other slots of the same token; the head's score is its mean over rows whose token came before."""

    name: ClassVar[str] = "duplicate"
    formula: ClassVar[str] = "Σ_{j ≠ i} a_ij [id_j = id_i]"
    title: ClassVar[str] = "duplicate token"
    order: ClassVar[int] = 110
    needs: ClassVar[frozenset[Need]] = SAME_TOKENS

    def of_rows(self, block: Block, view: View) -> Tensor:
        assert block.query.ids is not None and block.key.ids is not None
        same = _equal(block.query.ids, block.key.ids)
        return (block.weights * (same & ~shifted(block, 0))).sum(-1)

    def core(self, view: View, rows: slice) -> tuple[core.CoreStatistic, ...]:
        assert view.query.ids is not None and view.key.ids is not None
        same = core.RowMatch(_int32(view.query.ids[:, rows]), _int32(view.key.ids))
        return (same, at_distance(view, rows, 0))

    def of_results(self, results: tuple[Any, ...], call: Walked) -> Growing:
        return _difference(results, call)

    def counted_rows(self, view: View) -> Tensor:
        return view.query.valid & seen_before(view.query)


@dataclass(frozen=True)
class Induction(RowStatistic):
    """Mass on tokens that follow another slot of this token (Olsson 2022), which for causal weights is an earlier one.

    The head's score is its mean over rows whose token came before. The token after a row follows its own slot, and is
    not counted. On repeated random tokens, [BOS] X X, this is the attention from i to i - (T - 1), T the length of X.
    """

    name: ClassVar[str] = "induction"
    formula: ClassVar[str] = "Σ_{j ≠ i+1} a_ij [id_{j-1} = id_i]"
    title: ClassVar[str] = "induction"
    order: ClassVar[int] = 120
    needs: ClassVar[frozenset[Need]] = SAME_TOKENS

    def of_rows(self, block: Block, view: View) -> Tensor:
        assert block.query.ids is not None
        follows = _equal(block.query.ids, id_before(view.key)[:, block.keys])
        return (block.weights * (follows & ~shifted(block, 1))).sum(-1)

    def core(self, view: View, rows: slice) -> tuple[core.CoreStatistic, ...]:
        assert view.query.ids is not None
        follows = core.RowMatch(_int32(view.query.ids[:, rows]), _int32(id_before(view.key)))
        return (follows, at_distance(view, rows, 1))

    def of_results(self, results: tuple[Any, ...], call: Walked) -> Growing:
        return _difference(results, call)

    def counted_rows(self, view: View) -> Tensor:
        return view.query.valid & seen_before(view.query)


def id_before(axis: Axis) -> Tensor:
    """The id of the token before each one, -1 for the first of a sequence. int64 [B,T]."""

    def make() -> Tensor:
        assert axis.ids is not None
        before = torch.nn.functional.pad(axis.ids, (1, 0), value=-1)[:, :-1]
        return torch.where(axis.positions > 0, before, -1)

    return axis.once("id before", make)


def seen_before(axis: Axis) -> Tensor:
    """bool [B,T]: the token occurred earlier in its row, padding aside."""
    return axis.once("seen before", lambda: torch.stack([_repeats(*row) for row in _rows(axis)]))


def _rows(axis: Axis) -> list[tuple[Tensor, Tensor]]:
    assert axis.ids is not None
    return list(zip(axis.ids, axis.valid, strict=True))


def _repeats(ids: Tensor, valid: Tensor) -> Tensor:
    """bool [T]: whether the first valid slot of the same id is an earlier one."""
    slots = torch.arange(ids.shape[0], device=ids.device)
    _, group = torch.unique(ids, return_inverse=True)
    first = torch.full_like(slots, ids.shape[0]).scatter_reduce(0, group, slots.where(valid, len(ids)), "amin")
    return first[group] < slots


def _equal(query_labels: Tensor, key_labels: Tensor) -> Tensor:
    """bool [B,1,rows,keys]."""
    return query_labels[:, None, :, None] == key_labels[:, None, None, :]


def shifted(block: Block, by: int) -> Tensor:
    """bool [B,1,rows,keys]: p_j = p_i + by."""
    return _equal(block.query.positions + by, block.key.positions)


def at_distance(view: View, rows: slice, by: int) -> core.RowMatch:
    """Σ_j a_ij [p_j = p_i + by] as a core record."""
    return core.RowMatch(_int32(view.query.positions[:, rows] + by), _int32(view.key.positions))


def _difference(results: tuple[Any, ...], call: Walked) -> Growing:
    """The rows of the first result without the second, which is a part of it."""
    return Growing((results[0] - results[1]).clamp_(min=0), (call.rows.start,))


def _int32(labels: Tensor) -> Tensor:
    return labels.to(torch.int32)
