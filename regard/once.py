"""What follows from a record alone is computed once for it, however many layers and statistics ask."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")

_made: WeakKeyDictionary[object, dict[Hashable, Any]] = WeakKeyDictionary()


def once(record: object, what: Hashable, make: Callable[[], T]) -> T:
    """make(), the first time it is asked for this record and this name; kept for as long as the record lives.

    The record must never change, and what is made must not refer to it, or it would live forever.
    """
    kept = _made.get(record)
    if kept is None:
        kept = _made[record] = {}
    if what not in kept:
        kept[what] = make()
    made: T = kept[what]
    return made
