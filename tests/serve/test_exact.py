"""What is served is what generate writes: token for token, in every architecture and whatever else goes on."""

from __future__ import annotations

from typing import Any

import pytest

from regard.serve.request import Sequence
from regard.serve.runner import Runner
from regard.serve.scheduler import Scheduler
from tests.hf.models import Case
from tests.serve.models import CASES, build, copied, generate
from tests.serve.served import Served, agrees, greedy, prompts

NEW = 7


class Known:
    """A model for serving, and what generate writes for the prompts."""

    def __init__(self, case: Case) -> None:
        model = build(case)
        self.prompts = prompts(6)
        self.wanted = [generate(model, prompt, NEW) for prompt in self.prompts]
        self.runner = Runner(copied(model))

    def check(self, served: Served, name: Any = str, index: int = 0) -> None:
        for i, want in enumerate(self.wanted):
            got = served.tokens(name(i), index)
            assert agrees(got, *want), f"prompt {i}: {got} is not {want[0]}"


FEW = ("llama", "gemma3", "gpt_oss")  # no window; some layers with one; sinks, experts and windows


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def known(request: pytest.FixtureRequest) -> Known:
    return Known(request.param)


def hard(function: Any) -> Any:
    """Every architecture in the slow tests, the telling ones always."""
    return pytest.mark.parametrize(
        "known",
        [pytest.param(case, marks=() if case.name in FEW else pytest.mark.slow, id=case.name) for case in CASES],
        indirect=True,
    )(function)


def requests(known: Known, **more: Any) -> list[Any]:
    return [greedy(str(i), prompt, NEW, **more) for i, prompt in enumerate(known.prompts)]


def preempting() -> Any:
    """The first always gets on; of the others another one loses its pages before every step."""
    turn = iter(range(10**6))

    def preempt(scheduler: Scheduler) -> None:
        rest: list[Sequence] = scheduler.running[1:]
        if rest:
            scheduler.preempt(rest[next(turn) % len(rest)])

    return preempt


def test_in_chunks_preempted_at_every_step_and_then_from_cached_prefixes(known: Known) -> None:
    served = Served(known.runner, token_budget=13)
    served.run(requests(known), preempting())
    known.check(served)
    counters = served.engine.scheduler.counters
    assert counters.preemptions > 5 and counters.reused_tokens > 0
    served.run([greedy(f"again{i}", prompt, NEW, n=2) for i, prompt in enumerate(known.prompts)])
    for index in range(2):
        known.check(served, lambda i: f"again{i}", index)


@hard
def test_all_together(known: Known) -> None:
    served = Served(known.runner, reuse=False)
    served.run(requests(known))
    known.check(served)


@hard
def test_alone(known: Known) -> None:
    served = Served(known.runner)
    for request in requests(known):
        served.run([request])
    known.check(served)


@hard
def test_in_a_pool_that_is_too_small(known: Known) -> None:
    served = Served(known.runner, pages=7, token_budget=24)
    served.run(requests(known))
    known.check(served)


@hard
def test_guessing_ahead(known: Known) -> None:
    served = Served(known.runner)
    served.run(requests(known, speculate=4))
    known.check(served)
