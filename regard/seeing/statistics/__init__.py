"""The statistics that regard ships, each exact; a_ij is the weight of query i on key j, p a logical position.

Formulas and their numerical limits follow from the weights being exact: within 1e-6 + 2.4e-7·σ·a of a dense
computation (σ the score scale); sums over rows are float64.

A statistic is a class in any file of this folder. It is found there: `standard` watches it, `named` gives it, and it
says itself how pictures call it.
"""

from __future__ import annotations

import pkgutil
from dataclasses import fields
from functools import cache
from importlib import import_module
from inspect import isabstract
from typing import Any

from regard.errors import UserError
from regard.seeing.statistics.context import EffectiveContext
from regard.seeing.statistics.distances import DistanceHistogram, MeanDistance
from regard.seeing.statistics.links import Maximum, TopK
from regard.seeing.statistics.masses import RowMass, SinkMass, SpecialMass
from regard.seeing.statistics.matches import DuplicateToken, Induction, PreviousToken
from regard.seeing.statistics.overview import Overview
from regard.seeing.statistics.own_token import OwnToken
from regard.seeing.statistics.received import Received
from regard.seeing.statistics.spread import EffectiveSpan, Entropy
from regard.statistic import Statistic

__all__ = [
    "DistanceHistogram",
    "DuplicateToken",
    "EffectiveContext",
    "EffectiveSpan",
    "Entropy",
    "Induction",
    "Maximum",
    "MeanDistance",
    "Overview",
    "OwnToken",
    "PreviousToken",
    "Received",
    "RowMass",
    "SinkMass",
    "SpecialMass",
    "TopK",
    "every",
    "named",
    "standard",
]


@cache
def every() -> dict[str, type[Statistic]]:
    """Every statistic of this folder by its name, in the order of listings."""
    kinds: list[type[Statistic]] = []
    for file in pkgutil.iter_modules(__path__):
        module = import_module(f"{__name__}.{file.name}")
        classes = [x for x in vars(module).values() if isinstance(x, type) and issubclass(x, Statistic)]
        kinds.extend(x for x in classes if x.__module__ == module.__name__ and not isabstract(x))
    return {kind.name: kind for kind in sorted(kinds, key=lambda kind: (kind.order, kind.name))}


def named(name: str, **options: Any) -> Statistic:
    """The statistic of this name, with these fields. Raises UserError, naming what there is, if there is none."""
    if name not in every():
        raise UserError(f"no statistic {name!r}; there are: {', '.join(every())}")
    return every()[name](**options)


def standard(resolution: int = 128, k: int = 8) -> tuple[Statistic, ...]:
    """What `see` watches unless told otherwise: every statistic that is standard.

    resolution: of the overview, cells a side; k: how many of a row's strongest links are kept.
    """
    options: dict[str, Any] = {"resolution": resolution, "k": k}
    kinds = (kind for kind in every().values() if kind.standard)
    return tuple(kind(**{f.name: options[f.name] for f in fields(kind) if f.name in options}) for kind in kinds)
