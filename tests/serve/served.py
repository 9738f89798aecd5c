"""An engine over a tiny model, driven step by step in the test's own thread."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from regard.serve.answers import Event
from regard.serve.engine import Engine
from regard.serve.request import Request, Sampling, Stopping
from regard.serve.runner import Runner
from regard.serve.scheduler import Limits, Scheduler

GREEDY = Sampling(temperature=0.0)


class Served:
    """events by (request, index); `tokens` joins them."""

    def __init__(
        self, runner: Runner, pages: int = 64, tokenizer: Any = None, reuse: bool = True, **limits: Any
    ) -> None:
        self.runner = runner
        self.events: list[Event] = []
        limits = {"token_budget": 64, "max_length": runner.max_length} | limits
        bounds = Limits(**limits)
        cost = sum(shape.page_bytes(runner.page_size, runner.dtype) for shape in runner.shapes.values())
        pool = runner.pool(pages * cost, bounds.token_budget, bounds.max_running, reuse)
        self.engine = Engine(runner, Scheduler(pool, bounds), self.events.extend, tokenizer)

    def run(self, requests: list[Request], between: Callable[[Scheduler], None] | None = None) -> None:
        for request in requests:
            self.engine.submit(request)
        scheduler = self.engine.scheduler
        self.engine.step()
        steps = 0
        while not scheduler.is_idle:
            scheduler.pool.check(s.table for s in scheduler.alive)
            if between is not None:
                between(scheduler)
            self.engine.step()
            steps += 1
            assert steps < 20_000
        scheduler.pool.check([])

    def tokens(self, name: str, index: int = 0) -> list[int]:
        return [t for e in self.events if (e.request_id, e.index) == (name, index) for t in e.tokens]


def greedy(name: str, prompt: list[int], new: int, **more: Any) -> Request:
    return Request(name, tuple(prompt), GREEDY, Stopping(max_tokens=new), **more)


def prompts(count: int, vocabulary: int = 99, longest: int = 50, seed: int = 3) -> list[list[int]]:
    """Prompts of odd lengths; every third begins like the one before, so that prefixes are shared."""
    draw = random.Random(seed)
    made: list[list[int]] = []
    for i in range(count):
        fresh = [draw.randrange(5, vocabulary) for _ in range(draw.choice([1, 2, 7, 17, 31, 33, longest]))]
        made.append((made[-1] + fresh)[: longest + 13] if i % 3 == 2 else fresh)
    return made


def agrees(got: list[int], want: list[int], gaps: list[float]) -> bool:
    """Equal up to the first place where generate's two best logits lie within 1e-4."""
    tie = next((i for i, gap in enumerate(gaps) if gap <= 1e-4), len(want))
    return got[:tie] == want[:tie] and len(got) == len(want)
