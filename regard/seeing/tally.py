"""A Tally: the numbers of every head over many inputs, as sums that merge, with the inputs that told most.

Tallies of shards are merged in the shards' order, so that the same shards give the same bits however they were shared
out, and a tally that was written and read again goes on as if it had not been.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from regard.seeing.trace import Trace

EXAMPLES = 3


@dataclass
class Numbers:
    """One statistic of one head over inputs: how many, their sum, sum of squares, extremes, and the highest inputs.

    best: (value, number of the input), the highest first; of equal values the earlier input.
    """

    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    low: float = math.inf
    high: float = -math.inf
    best: list[tuple[float, int]] = field(default_factory=list)

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else math.nan

    @property
    def spread(self) -> float:
        """The standard deviation over inputs."""
        if not self.count:
            return math.nan
        return math.sqrt(max(0.0, self.squares / self.count - self.mean**2))

    def add(self, value: float, which: int) -> None:
        self.merge(Numbers(1, value, value * value, value, value, [(value, which)]))

    def merge(self, other: Numbers) -> None:
        self.count += other.count
        self.total += other.total
        self.squares += other.squares
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self.best = sorted([*self.best, *other.best], key=lambda each: (-each[0], each[1]))[:EXAMPLES]


Key = tuple[str, int, str]
"""A layer's title, a head, a statistic's label."""


@dataclass
class Tally:
    """The numbers of every head and statistic; inputs: how many were taken in."""

    inputs: int = 0
    numbers: dict[Key, Numbers] = field(default_factory=dict)

    def add(self, trace: Trace, which: int) -> None:
        """Take in one input, by its number: the first sequence of its Trace."""
        self.inputs += 1
        for layer in trace.layers:
            for label, values in layer.summaries.items():
                for head, value in zip(layer.heads, values[0].tolist(), strict=True):
                    if math.isfinite(value):
                        self.numbers.setdefault((layer.title, head, label), Numbers()).add(value, which)

    def merge(self, other: Tally) -> None:
        """Take in the tally of the inputs that follow."""
        self.inputs += other.inputs
        for key, numbers in other.numbers.items():
            self.numbers.setdefault(key, Numbers()).merge(numbers)

    def json(self) -> dict[str, Any]:
        """All of it as JSON; floats come back with their bits."""
        heads = [{"layer": k[0], "head": k[1], "label": k[2]} | vars(numbers) for k, numbers in self.numbers.items()]
        return {"inputs": self.inputs, "heads": heads}

    @staticmethod
    def read(about: dict[str, Any]) -> Tally:
        """What `json` gave."""
        tally = Tally(about["inputs"])
        for each in about["heads"]:
            fields = {name: each[name] for name in ("count", "total", "squares", "low", "high")}
            best = [(float(value), int(which)) for value, which in each["best"]]
            tally.numbers[each["layer"], each["head"], each["label"]] = Numbers(**fields, best=best)
        return tally
