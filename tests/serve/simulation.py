"""A scheduler driven without a model: a sequence's next token is a hash of what came before."""

from __future__ import annotations

import random
from collections.abc import Callable

from regard.serve.pool import Group, Pool
from regard.serve.request import Request, Sampling, Stopping
from regard.serve.scheduler import Limits, Scheduler, Step

GREEDY = Sampling(temperature=0.0)


def pool_of(*num_pages: int | tuple[int, int], page_size: int = 16, reuse: bool = True) -> Pool:
    """A pool of groups: so many pages, or (pages, window)."""
    return Pool([Group(*(g if isinstance(g, tuple) else (g,))) for g in num_pages], page_size, reuse)


def request(name: str, prompt: list[int] | int, new: int = 4, **more: object) -> Request:
    tokens = tuple(range(prompt)) if isinstance(prompt, int) else tuple(prompt)
    return Request(name, tokens, GREEDY, Stopping(max_tokens=new), **more)  # type: ignore[arg-type]


def lognormal(draw: random.Random, median: float, sigma: float, least: int, most: int) -> int:
    from math import log

    return min(most, max(least, round(draw.lognormvariate(log(median), sigma))))


def commit(scheduler: Scheduler, step: Step, next_token: Callable[[list[int]], int] = lambda tokens: 7) -> None:
    """Pretend that a step was computed."""
    for work in step.work:
        sequence = work.sequence
        if not work.chooses:
            scheduler.commit(work, [])
            continue
        first = not sequence.output
        scheduler.commit(work, [])
        others = scheduler.fork(sequence) if first and sequence.request.n > 1 else []
        for each in (sequence, *others):
            each.tokens.append(next_token(each.tokens))
            if len(each.tokens) - each.num_prompt >= each.request.stopping.max_tokens:
                scheduler.finish(each, "length")


def run(scheduler: Scheduler, checked: bool = True, most: int = 100_000) -> int:
    """Steps until nothing is left."""
    steps = 0
    while not scheduler.is_idle:
        step = scheduler.schedule()
        assert step.work, "a step without work is a deadlock"
        assert step.num_rows <= scheduler.limits.token_budget
        if checked:
            scheduler.pool.check(sequence.table for sequence in scheduler.alive)
        commit(scheduler, step)
        if checked:
            scheduler.pool.check(sequence.table for sequence in scheduler.alive)
        steps += 1
        assert steps < most
    return steps


__all__ = ["GREEDY", "Limits", "Scheduler", "commit", "lognormal", "pool_of", "request", "run"]
