"""What a call costs before and around its kernel: small calls, plans used again, steps on pages, watching.

Every row is the median of many short loops, all rows in turn, so that what else the machine does falls on all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa

from regard import core
from regard.bench.cases import pages
from regard.bench.machine import describe
from regard.bench.timing import SETTLE_SECONDS
from regard.inputs import Inputs, inputs, packed_inputs
from regard.mechanism import Mechanism
from regard.run.attention import attention
from regard.run.backend import Choice
from regard.run.choose import choose
from regard.run.native import decode
from regard.run.pages import new_pages
from regard.zoo import card

HEADS, GROUPS, WIDTH, PAGE = 9, 3, 64, 16
Call = Callable[[], Any]


def run(rounds: int, report: Callable[[str], None]) -> dict[str, Any]:
    """Of every call, by group and name: median microseconds, and the median of its ratios to the group's first."""
    groups = {
        "8 tokens, 9 heads": _small(),
        "a layer of 8 tokens, every statistic": _watched(),
        "decode of 32 × 100": _decode([100] * 32),
        "decode of 32 × 1,000": _decode([1000] * 32),
        "prefill of 4 × 256 beside decode of 28 × 500": _mixed(),
    }
    with torch.no_grad():
        found = {name: _medians(calls, rounds, report, name) for name, calls in groups.items()}
    return {"machine": describe(), "rounds": rounds, "microseconds": found}


def table(result: dict[str, Any]) -> list[list[str]]:
    """Rows of a table: what was called, microseconds, and against the group's first."""
    rows = [["call", "µs", "against the first"]]
    for group, calls in result["microseconds"].items():
        rows += [[f"{group}: {name}", f"{time:.1f}", f"{ratio:.2f}"] for name, (time, ratio) in calls.items()]
    return rows


def _medians(
    calls: dict[str, Call], rounds: int, report: Callable[[str], None], name: str
) -> dict[str, tuple[float, float]]:
    report(name)
    loops = {who: _loops(call) for who, call in calls.items()}
    times: dict[str, list[float]] = {who: [] for who in calls}
    for _ in range(rounds):
        for who, call in calls.items():
            time.sleep(SETTLE_SECONDS)
            call()
            begin = time.perf_counter()
            for _ in range(loops[who]):
                call()
            times[who].append((time.perf_counter() - begin) / loops[who] * 1e6)
    first = next(iter(times.values()))
    return {who: (median(own), median(a / b for a, b in zip(own, first))) for who, own in times.items()}


def _loops(call: Call) -> int:
    """So many calls that they take about 5 ms, after some that warm up."""
    for _ in range(20):
        call()
    begin = time.perf_counter()
    call()
    return max(1, int(5e-3 / max(time.perf_counter() - begin, 1e-6)))


def _tokens(count: int, heads: int, seed: int) -> Tensor:
    return torch.randn(1, heads, count, WIDTH, generator=torch.Generator().manual_seed(seed))


def _causal() -> Mechanism:
    causal = card("causal").make()
    assert isinstance(causal, Mechanism)
    return causal


def _small() -> dict[str, Call]:
    q, k, v = (_tokens(8, HEADS, seed) for seed in range(3))
    plan = choose(_causal(), inputs(q, k, v))
    return {
        "torch's SDPA": lambda: sdpa(q, k, v, is_causal=True),
        'attention(q, k, v, "causal")': lambda: attention(q, k, v, "causal"),
        "on a plan that is lowered": lambda: plan.over(q, k, v).output(),
    }


def _watched() -> dict[str, Call]:
    from regard.run.choose import observers
    from regard.seeing.statistics import standard
    from regard.seeing.watching import Watching
    from regard.statistic import Axis, View

    q, k, v = (_tokens(8, HEADS, seed) for seed in range(3))
    causal, x = _causal(), inputs(q, k)
    at = torch.arange(8)[None]
    axis = Axis(at, torch.ones_like(at, dtype=torch.bool), at % 5, at < 1)
    view, statistics, fused = View(1, HEADS, axis, axis, True), standard(), observers()

    def watch() -> None:
        Watching(statistics, fused).absorb(causal, x, view, slice(0, 8), 0, None)

    return {'attention(q, k, v, "causal")': lambda: attention(q, k, v, "causal"), "watched as well": watch}


def _in_pages(lengths: list[int], new: list[int]) -> Inputs:
    make = torch.Generator().manual_seed(0)
    table = pages.table(lengths, PAGE, make)
    pool = new_pages(sum(-(-n // PAGE) for n in lengths), GROUPS, WIDTH, WIDTH, PAGE)
    for part in pool:
        part.normal_(generator=make)
    ends = torch.tensor([0, *torch.tensor(new).cumsum(0).tolist()], dtype=torch.int32)
    layout = core.Paged(table, torch.tensor(lengths, dtype=torch.int32), PAGE, ends)
    return packed_inputs(torch.randn(sum(new), HEADS, WIDTH, generator=make), *pool, layout)


def _step(x: Inputs) -> Choice:
    return choose(_causal(), x, "native")


def _again(step: Choice, x: Inputs) -> Call:
    """The step of another layer: the same plan on other tensors."""
    return lambda: step.over(x.q, x.k, x.v).walk()


def _decode(lengths: list[int]) -> dict[str, Call]:
    x = _in_pages(lengths, [1] * len(lengths))
    step = _step(x)
    plan = step.call
    assert isinstance(plan, core.Plan)
    rows = decode.rows_of(plan)
    assert rows is not None
    out = torch.empty(len(lengths), HEADS, WIDTH).transpose(0, 1)[None]
    state = torch.empty(2, 1, HEADS, len(lengths))
    return {
        "the decoding kernel alone": lambda: decode.run(plan, rows, out, state[0], state[1]),
        "on a step's plan": _again(step, x),
        "the plan made anew": lambda: _step(x).walk(),
    }


def _mixed() -> dict[str, Call]:
    prefill, decoding = _in_pages([256] * 4, [256] * 4), _in_pages([500] * 28, [1] * 28)
    both = _in_pages([256] * 4 + [500] * 28, [256] * 4 + [1] * 28)
    steps = [(_step(x), x) for x in (prefill, decoding, both)]
    apart = [_again(*steps[0]), _again(*steps[1])]
    return {"the two apart": lambda: [call() for call in apart], "both at once": _again(*steps[2])}
