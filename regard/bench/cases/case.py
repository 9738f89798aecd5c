"""A case: what is computed, by whom, and how far each result is from float64."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from regard.errors import UserError

TOLERANCE = 1e-5


@dataclass(frozen=True, eq=False)
class Contestant:
    """One way to compute a case. error: how far what `run` gave is from float64, None where it is no result of the
    case (reading bytes, an easier problem). compiles: whether the first run compiles, so that memory is that of the
    second."""

    run: Callable[[], Any]
    error: Callable[[Any], float] | None = None
    compiles: bool = False


@dataclass(frozen=True, eq=False)
class Case:
    """A problem. peer: the contestant that every ratio refers to; also: further (contestant, peer) ratios.

    before: run before each timing, untimed; it empties caches. note: what a reader of the ratios should know.
    """

    peer: str
    contestants: dict[str, Contestant]
    also: tuple[tuple[str, str], ...] = ()
    note: str = ""
    before: Callable[[], Any] = lambda: None


@dataclass(frozen=True, eq=False)
class Recipe:
    """How to make a case. family, tokens: a sweep over lengths and the place in it, for plots; long: only if named."""

    make: Callable[[], Case]
    family: str
    tokens: int | None = None
    long: bool = False


def check(name: str, case: Case) -> dict[str, float | None]:
    """The error of every contestant, each run once. Raises UserError for one beyond TOLERANCE or not a number."""
    errors: dict[str, float | None] = {}
    for who, contestant in case.contestants.items():
        found = contestant.run()
        errors[who] = None if contestant.error is None else contestant.error(found)
        error = errors[who]
        if error is not None and not error <= TOLERANCE:
            raise UserError(f"{who} in {name} is off by {error:.1e} from float64; the case was not timed")
    return errors


def worst(errors: Iterable[float]) -> float:
    """The largest error; NaN if any is."""
    return float(torch.tensor(list(errors), dtype=torch.float64).amax())


def off(found: Tensor, truth: Tensor) -> float:
    """The largest difference, relative to the largest number of the truth where that is beyond 1."""
    if not truth.numel():
        return 0.0
    return float((found.double() - truth).abs().max() / truth.abs().max().clamp(min=1.0))
