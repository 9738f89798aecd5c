"""What a replay measured: every token's time, and the figures that servers are compared by."""

from __future__ import annotations

import itertools
import statistics
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Replay:
    """times: for each request, seconds after its arrival at which each token came. seconds: of the whole load."""

    name: str
    times: list[list[float]]
    seconds: float
    tokens: list[list[int]] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)

    def figures(self, first_within: float = 2.0, between_within: float = 0.2) -> dict[str, Any]:
        """Throughput in output tokens per second; times in seconds; goodput: requests per second whose first token
        came within first_within and whose tokens came on average within between_within of each other."""
        written = sum(map(len, self.times))
        first = [t[0] for t in self.times if t]
        gaps = sorted(b - a for t in self.times for a, b in itertools.pairwise(t))
        per_token = [(t[-1] - t[0]) / (len(t) - 1) for t in self.times if len(t) > 1]
        good = sum(
            t[0] <= first_within and (len(t) < 2 or (t[-1] - t[0]) / (len(t) - 1) <= between_within)
            for t in self.times
            if t
        )
        return {
            "name": self.name,
            "seconds": self.seconds,
            "tokens": written,
            "tokens_per_second": written / self.seconds,
            "first_token": statistics.median(first) if first else None,
            "per_token": statistics.median(per_token) if per_token else None,
            "between_p50": _at(gaps, 0.5),
            "between_p99": _at(gaps, 0.99),
            "goodput": good / self.seconds,
            **self.notes,
        }


def middle(turns: list[Replay]) -> Replay:
    """The turn of median length; its notes say how long every turn took."""
    found = sorted(turns, key=lambda replay: replay.seconds)[len(turns) // 2]
    if len(turns) > 1:
        found.notes["turns"] = [replay.seconds for replay in turns]
    return found


def _at(ordered: list[float], share: float) -> float | None:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None
