"""How much of the pages is empty while a load is served: scheduler and pool alone, without a model."""

from __future__ import annotations

from typing import Any

from regard.bench.serving.load import Ask
from regard.serve.pool import Group, Pool
from regard.serve.request import Request, Sampling, Stopping
from regard.serve.scheduler import Limits, Scheduler


def simulate(asks: list[Ask], page_size: int = 16, running: int = 64, budget: int = 512) -> dict[str, Any]:
    """page_waste: 1 - tokens held / slots of the pages that hold them, both summed over all steps; beside it steps,
    preemptions and the mean length of an answer with its prompt. All requests are there at once.

    The pool holds `running` sequences of the load's longest, so that nothing waits for pages."""
    longest = max(len(ask.prompt) + ask.new_tokens for ask in asks)
    pool = Pool([Group(running * (longest // page_size + 2))], page_size, reuse=False)
    scheduler = Scheduler(pool, Limits(budget, running, len(asks), longest))
    for i, ask in enumerate(asks):
        stopping = Stopping(max_tokens=ask.new_tokens)
        scheduler.add(Request(str(i), tuple(ask.prompt), Sampling(temperature=0.0), stopping))
    used = slots = steps = 0
    while not scheduler.is_idle:
        for work in scheduler.schedule().work:
            sequence, chooses = work.sequence, work.chooses
            scheduler.commit(work, [0] if chooses else [])
            if chooses and len(sequence.tokens) - sequence.num_prompt >= sequence.request.stopping.max_tokens:
                scheduler.finish(sequence, "length")
        slots += sum(len(s.table.pages[0]) * page_size for s in scheduler.running)
        used += sum(s.num_computed for s in scheduler.running)
        steps += 1
    total = sum(len(ask.prompt) + ask.new_tokens for ask in asks)
    return {
        "page_waste": 1 - used / slots if slots else 0.0,
        "page_size": page_size,
        "requests": len(asks),
        "mean_length": total / len(asks),
        "steps": steps,
        "preemptions": scheduler.counters.preemptions,
    }


def table(found: dict[str, Any]) -> list[list[str]]:
    """Rows of text, a head first."""
    return [
        ["requests", "mean length", "page size", "page waste", "steps"],
        [str(found["requests"]), f"{found['mean_length']:.0f}", str(found["page_size"]),
         f"{100 * found['page_waste']:.2f} %", str(found["steps"])],
    ]  # fmt: skip
