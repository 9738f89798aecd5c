"""Contestants timed in turn, so that what else the machine does falls on all of them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median

from regard.bench.cases.case import Case

MIN_TURNS = 3
SETTLE_SECONDS = 0.03  # OpenMP's threads wait at work for some time; whoever comes next would share a core with them


@dataclass(frozen=True)
class Times:
    """Seconds of every contestant in each turn."""

    seconds: dict[str, list[float]]

    @property
    def turns(self) -> int:
        return len(next(iter(self.seconds.values())))

    def typical(self, who: str) -> float:
        """The median of a contestant's seconds."""
        return median(self.seconds[who])

    def ratio(self, who: str, peer: str) -> float:
        """The median of the ratios to a peer in the same turn."""
        return median(a / b for a, b in zip(self.seconds[who], self.seconds[peer], strict=True))


def timed(case: Case, repeats: int, budget_seconds: float) -> Times:
    """Up to `repeats` turns, fewer (but MIN_TURNS) once the budget is spent; everyone was run once before."""
    found = Times({who: [] for who in case.contestants})
    begin = time.perf_counter()
    for turn in range(repeats):
        if turn >= MIN_TURNS and time.perf_counter() - begin > budget_seconds:
            break
        for who, contestant in case.contestants.items():
            case.before()
            time.sleep(SETTLE_SECONDS)
            start = time.perf_counter()
            contestant.run()
            found.seconds[who].append(time.perf_counter() - start)
    return found
