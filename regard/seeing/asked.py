"""What statistics ask of one call, as core records: worked out once for all layers that share axes and rows."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from torch import Tensor

from regard import core
from regard.statistic import Of, Statistic, View


@dataclass(frozen=True, eq=False)
class Asked:
    """The statistics that mean something in a call, and why the others do not, by label.

    records: distinct core records; fused: the statistics that state some, their labels, and where their own lie among
    them; open: those that state none. counted: bool [B,rows], False for rows of padding.
    """

    defined: tuple[Statistic, ...]
    undefined: Mapping[str, str]
    records: tuple[core.CoreStatistic, ...]
    fused: tuple[tuple[Statistic, str, tuple[int, ...]], ...]
    open: tuple[Statistic, ...]
    counted: Tensor


def asked(statistics: Sequence[Statistic], of: Of, view: View, rows: slice) -> Asked:
    """What those of the statistics with this weighting ask of the query rows `rows` of a view."""
    by_query: WeakKeyDictionary[object, dict[object, tuple[object, Asked]]]
    by_query = view.key.once("asked, by query axis", WeakKeyDictionary)
    kept = by_query.setdefault(view.query, {})
    which = (id(statistics), of, rows.start, rows.stop, view.same_axis, view.kind)
    if which not in kept:
        kept[which] = statistics, _asked([s for s in statistics if s.of == of], view, rows)
    return kept[which][1]


def _asked(statistics: Sequence[Statistic], view: View, rows: slice) -> Asked:
    reasons = {s.label: s.undefined(view) for s in statistics}
    defined = tuple(s for s in statistics if reasons[s.label] is None)
    stated = [(s, records) for s in defined if (records := s.core(view, rows)) is not None]
    records, at = _without_repeats([group for _, group in stated])
    fused = tuple((s, s.label, indices) for (s, _), indices in zip(stated, at, strict=True))
    states_some = {label for _, label, _ in fused}
    return Asked(
        defined,
        {label: reason for label, reason in reasons.items() if reason is not None},
        records,
        fused,
        tuple(s for s in defined if s.label not in states_some),
        view.query.valid[:, rows],
    )


def _without_repeats(
    groups: list[tuple[core.CoreStatistic, ...]],
) -> tuple[tuple[core.CoreStatistic, ...], list[tuple[int, ...]]]:
    """The distinct records, and where each group's are among them: one record twice, or two of a kind without data."""
    index: dict[Hashable, int] = {}
    at = [tuple(index.setdefault(_what(record), len(index)) for record in group) for group in groups]
    records = {_what(record): record for group in groups for record in group}
    return tuple(records[what] for what in index), at


def _what(record: core.CoreStatistic) -> Hashable:
    """The same for records that ask for the same, as far as can be told without comparing tensors."""
    values = tuple(vars(record).values())
    return id(record) if any(isinstance(x, Tensor) for x in values) else (type(record), *values)
