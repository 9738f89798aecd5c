"""How a training is told: a bar where there is a terminal, else a line now and then."""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO

from regard.seq2seq.checkpoint import Counters

EVERY_SECONDS = 30.0


class Lines:
    """One line to a stream every half minute, and one for each evaluation."""

    def __init__(self, stream: TextIO | None = None, every: float = EVERY_SECONDS) -> None:
        self.stream, self.every = stream or sys.stderr, every
        self.told = self.since = time.monotonic()
        self.tokens, self.losses, self.seen = 0, 0.0, 0

    def step(self, counters: Counters, loss: float, tokens: int, left: float | None) -> None:
        """Note a step; tell once in a while. loss: nats per token; left: seconds, if known."""
        self.tokens += tokens
        self.losses += loss * tokens
        self.seen += tokens
        now = time.monotonic()
        if now - self.told >= self.every:
            print(self.line(counters, left, now), file=self.stream, flush=True)
            self.told = self.since = now
            self.tokens, self.losses, self.seen = 0, 0.0, 0

    def line(self, counters: Counters, left: float | None, now: float) -> str:
        """Step, epoch, mean loss and tokens per second since the last line, time left."""
        speed = self.tokens / max(now - self.since, 1e-9)
        said = f"step {counters.step}  epoch {counters.epoch}  loss {self.losses / max(self.seen, 1):.3f}"
        return f"{said}  {speed:,.0f} tokens/s" + ("" if left is None else f"  {clock(left)} left")

    def evaluated(self, row: dict[str, Any]) -> None:
        """Tell an evaluation's numbers."""
        print("  ".join(f"{name} {value}" for name, value in row.items()), file=self.stream, flush=True)
        self.told = self.since = time.monotonic()

    def close(self) -> None:
        """Nothing is open."""


class Bar(Lines):
    """The same numbers in a bar of rich at the bottom of a terminal."""

    def __init__(self) -> None:
        super().__init__(every=0.5)
        from rich.console import Console
        from rich.status import Status

        self.console = Console(stderr=True)
        self.status = Status("starting", console=self.console)
        self.status.start()

    def step(self, counters: Counters, loss: float, tokens: int, left: float | None) -> None:
        """Note a step and redraw."""
        self.tokens += tokens
        self.losses += loss * tokens
        self.seen += tokens
        now = time.monotonic()
        if now - self.told >= self.every:
            self.status.update(self.line(counters, left, now))
            self.told = now
        if now - self.since > EVERY_SECONDS:
            self.since, self.tokens, self.losses, self.seen = now, 0, 0.0, 0

    def evaluated(self, row: dict[str, Any]) -> None:
        """Print an evaluation's numbers above the bar."""
        self.console.print("  ".join(f"{name} {value}" for name, value in row.items()), highlight=False)

    def close(self) -> None:
        """Take the bar away."""
        self.status.stop()


def told() -> Lines:
    """A bar on a terminal, lines elsewhere."""
    return Bar() if sys.stderr.isatty() else Lines()


def clock(seconds: float) -> str:
    """h:mm:ss."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
