"""One table says what each backend computes: the choice, the errors, `--verbose` and docs/backends.md agree with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import regard
from regard import core
from regard.errors import UserError
from regard.inputs import inputs
from regard.mechanism import Mechanism
from regard.parts import masks
from regard.parts.defaults import mechanism_with
from regard.parts.normalisers import Sigmoid, Softmax
from regard.parts.scores import Dot, Slope
from regard.run import native
from regard.run.backend import CONCERNS, Limit, Request, refusal
from regard.run.choose import BACKENDS, candidates, choose, explain, observers
from regard.run.docs import page
from tests.run.plans import simple

CAUSAL = mechanism_with("causal", "", mask=masks.causal())
WINDOW = mechanism_with("window", "", mask=masks.causal() & masks.window(3))
ALIBI = mechanism_with("alibi", "", score=(Dot(), Slope(torch.rand(4))), mask=masks.causal())
SIGMOID = mechanism_with("sigmoid", "", normaliser=Sigmoid(-3.0))
SINK = mechanism_with("sink", "", normaliser=Softmax(torch.rand(4)))
needs_native = pytest.mark.skipif(not native.available(), reason=str(native.why_unavailable()))


def qkv(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = torch.randn(3, 1, 4, 9, 8).to(dtype)
    return q, k, v


# ---- every limit, broken once ---------------------------------------------------------------------------------------


class Foreign:
    """A core record that no backend knows."""


def changed(watch: core.Watch | None = None, needs_grad: bool = False, documents: int = 0, **parts: Any) -> Request:
    ends = torch.arange(documents + 1)
    plan = dataclasses.replace(simple(), **parts, layout=core.Ragged(ends, ends) if documents else core.DENSE)
    return Request(lambda: plan, watch, needs_grad, plan.layout)


def watching(*statistics: Any, **more: Any) -> core.Watch:
    return core.Watch(statistics, **more)


PLAN = simple()
DOT = core.Dot(0.1)
FAR = torch.tensor([0, 1 << 40]).repeat(1, 50)
UNKNOWN = torch.full((1, 100), -(1 << 62))
FOREIGN: Any = Foreign()
REFUSED = core.Refusal("Sigmoid", "is not a softmax")
BROKEN: list[tuple[str, Callable[[], Request], str]] = [
    ("native", lambda: Request(lambda: REFUSED), "Sigmoid: is not a softmax; native computes dot products"),
    ("native", lambda: changed(q=PLAN.q.to("meta")), "q: lies on meta; native computes on the CPU"),
    ("native", lambda: changed(q=PLAN.q.double()), "q: is torch.float64; native takes float32"),
    ("native", lambda: changed(k=PLAN.k.half()), "k: is torch.float16 and q torch.float32; native takes"),
    ("native", lambda: changed(k=PLAN.k.mT.contiguous().mT), "k: its last dimension is not contiguous; native reads"),
    ("native", lambda: changed(terms=()), "score: does not begin with Dot; native takes Dot once and first"),
    ("native", lambda: changed(terms=(DOT, DOT)), "Dot: occurs twice; native takes Dot once and first"),
    ("native", lambda: changed(terms=(DOT, FOREIGN)), "Foreign: is no term of these; native takes"),
    (
        "native",
        lambda: changed(watching(core.RowDistance()), query_positions=FAR),
        "RowDistance: reads positions, which",
    ),
    ("native", lambda: changed(watching(core.RowDistance()), query_positions=UNKNOWN), "which are not known; native"),
    (
        "native",
        lambda: changed(needs_grad=True, terms=(DOT, core.Slope(torch.zeros(4, requires_grad=True)))),
        "Slope: asks for a gradient; native has gradients of q, k, v, a scale and a sink, not",
    ),
    ("native", lambda: changed(watching(FOREIGN)), "Foreign: is none of them; native reduces those of core.py"),
    ("native", lambda: changed(watching(core.TopK(1), core.TopK(2))), "TopK: is watched twice in one call; native"),
    (
        "native",
        lambda: changed(watching(core.RowEntropy(), key_scale=torch.ones(1, 4, 100))),
        "RowEntropy: has a key scale; native takes RowEntropy without",
    ),
    ("native", lambda: changed(watching(*[core.RowDistance()] * 62)), "Watch: has 62 sums per row; native takes 61"),
    (
        "native",
        lambda: changed(watching(core.Pool(1, 1)), documents=2),
        "Pool: is asked for on 2 documents; native",
    ),
    ("native", lambda: changed(documents=1, needs_grad=True), "gradients: are asked for on packed documents; native"),
    ("triton", lambda: Request(lambda: REFUSED), "Sigmoid: is not a softmax; triton computes dot products"),
    ("triton", lambda: changed(k=PLAN.k.to("meta")), "k: lies on meta and q on cpu; triton computes where q lies"),
    ("triton", lambda: changed(q=PLAN.q.double()), "q: is torch.float64; triton takes float32"),
    ("triton", lambda: changed(v=torch.zeros(1, 2, 100, 600)), "v: is 600 wide; triton takes heads 1 to 512 wide"),
    ("triton", lambda: changed(terms=(DOT, DOT)), "Dot: occurs twice; triton takes Dot once and first"),
    ("triton", lambda: changed(watching(core.RowDistance()), query_positions=FAR), "RowDistance: reads positions"),
    (
        "triton",
        lambda: changed(needs_grad=True, terms=(DOT, core.Slope(torch.zeros(4, requires_grad=True)))),
        "Slope: asks for a gradient; triton has gradients of",
    ),
    ("triton", lambda: changed(watching(FOREIGN)), "Foreign: is none of them; triton reduces those of core.py"),
    ("triton", lambda: changed(watching(core.TopK(1), core.TopK(2))), "TopK: is watched twice in one call; triton"),
    (
        "triton",
        lambda: changed(watching(core.RowEntropy(), key_scale=torch.ones(1, 4, 100))),
        "RowEntropy: has a key scale; triton",
    ),
    ("triton", lambda: changed(watching(core.TopK(17))), "TopK: keeps 17 links a row; triton keeps 1 to 16"),
    ("triton", lambda: changed(watching(core.DistanceHistogram(65))), "DistanceHistogram: has 65 bins; triton"),
    ("triton", lambda: changed(watching(*[core.RowDistance()] * 33)), "Watch: has 33 sums per row; triton takes 32"),
    ("triton", lambda: changed(documents=1, needs_grad=True), "gradients: are asked for on packed documents; triton"),
    ("sdpa", lambda: Request(lambda: REFUSED), "Sigmoid: is not a softmax; sdpa computes dot products"),
    ("sdpa", lambda: changed(k=PLAN.k.to("meta")), "k: lies on meta and q on cpu; sdpa computes where q lies"),
    ("sdpa", lambda: changed(q=PLAN.q.to(torch.float8_e4m3fn)), "q: is torch.float8_e4m3fn; sdpa takes float64"),
    ("sdpa", lambda: changed(terms=(DOT, core.Softcap(3.0))), "Softcap: is a further score term; sdpa takes"),
    ("sdpa", lambda: changed(terms=(core.Dot(torch.ones(4)),)), "Dot: has a tensor for its scale; sdpa takes one"),
    ("sdpa", lambda: changed(softmax=core.Softmax(torch.zeros(4))), "Softmax: has a sink; sdpa takes a softmax"),
    ("sdpa", lambda: changed(v=torch.zeros(1, 2, 100, 3)), "v: is 3 wide and q 32; sdpa takes values as wide as keys"),
    ("sdpa", lambda: changed(v=None), "v: is not given; sdpa takes values"),
    ("sdpa", lambda: changed(ranges=PLAN.ranges.rows(0, 100) & ~PLAN.ranges), "mask: is neither; sdpa takes a full"),
    ("sdpa", lambda: changed(watching(core.RowMax())), "Watch: asks for statistics; sdpa reduces no weights"),
    ("sdpa", lambda: changed(documents=1), "Ragged: packs documents; sdpa takes dense tensors"),
    ("reference", lambda: changed(watching(core.RowMax())), "Watch: asks for statistics; reference reduces no"),
]


def hit(name: str, request: Request) -> Limit | None:
    return next((limit for limit in BACKENDS[name].limits if limit.hit(request) is not None), None)


@needs_native
@pytest.mark.parametrize("name,make,words", BROKEN, ids=lambda x: x if isinstance(x, str) else "")
def test_a_broken_limit_is_said_with_the_part_and_the_reason(
    name: str, make: Callable[[], Request], words: str
) -> None:
    assert words in str(refusal(name, BACKENDS[name].limits, make()))


@needs_native
def test_every_limit_can_be_broken() -> None:
    every = {(name, limit) for name, row in BACKENDS.items() for limit in row.limits if limit.what != "machine"}
    assert {(name, hit(name, make())) for name, make, _ in BROKEN} == every
    assert {limit.what for _, limit in every} | {"machine"} == set(CONCERNS)


@needs_native
@pytest.mark.parametrize("name", BACKENDS)
def test_a_plain_call_is_within_all_limits(name: str) -> None:
    assert refusal(name, BACKENDS[name].limits, changed()) is None


# ---- the choice -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mechanism", [CAUSAL, WINDOW, ALIBI, SIGMOID, SINK], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_auto_takes_the_first_without_a_reason_and_names_the_others(mechanism: Mechanism, dtype: torch.dtype) -> None:
    x = inputs(*qkv(dtype))
    reasons = explain(mechanism, x)
    assert [name for name, _ in reasons] == list(BACKENDS)
    able = [name for name, reason in reasons if reason is None and name in candidates(x.q.device)]
    choice = choose(mechanism, x)
    assert choice.taken == able[0]
    tried = [(name, reason) for name, reason in reasons if name in candidates(x.q.device)]
    earlier = tried[: [name for name, _ in tried].index(choice.taken)]
    assert [(other.backend, other.reason) for other in choice.passed_over] == earlier
    assert {other.taken for other in choice.passed_over} <= {choice.taken}
    assert torch.equal(choice.output(), regard.attention(*(t for t in (x.q, x.k, x.v) if t is not None), mechanism))


@pytest.mark.parametrize("mechanism", [WINDOW, ALIBI, SIGMOID, SINK], ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_named_backend_refuses_for_the_reason_that_explain_gives(mechanism: Mechanism, backend: str) -> None:
    q, k, v = qkv()
    reason = dict(explain(mechanism, inputs(q, k, v)))[backend]
    if reason is None:
        assert choose(mechanism, inputs(q, k, v), backend).taken == backend
        return
    with pytest.raises(UserError) as error:
        regard.attention(q, k, v, mechanism, backend=backend)
    assert str(error.value) == f"backend {backend!r} cannot compute {mechanism.name}: {reason}; use backend='auto'"


def test_what_is_watched_counts() -> None:
    x = inputs(*qkv())
    watched = dict(explain(CAUSAL, x, core.Watch((core.RowEntropy(),))))
    assert watched["strips"] is None and "reduces no weights" in str(watched["sdpa"])
    if native.available():
        assert watched["native"] is None


def test_observers_are_all_or_the_named_one() -> None:
    assert observers("native") == (native.NATIVE,)
    assert observers() == observers("strips") == (native.NATIVE,)


# ---- the docs -------------------------------------------------------------------------------------------------------


def test_the_page_is_not_stale() -> None:
    path = Path(__file__).parents[2] / "docs" / "backends.md"
    assert path.read_text("utf-8") == page(), f"{path.name} is stale; run python -m regard.run.docs"
