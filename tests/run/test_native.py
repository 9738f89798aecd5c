"""The native core against a dense float64 computation, over every kind of plan."""

from __future__ import annotations

import dataclasses
import os

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regard import core
from regard.core import ranges
from regard.run import native
from regard.run.native import NATIVE
from regard.run.output import Output
from tests.run.dense_core import Dense, dense, statistic
from tests.run.plans import everything, mask, plans, simple

pytestmark = pytest.mark.skipif(not native.available(), reason=str(native.why_unavailable()))

UNHURRIED = (HealthCheck.too_slow,)
EXAMPLES = int(os.environ.get("REGARD_TEST_EXAMPLES", "50"))
thorough = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=UNHURRIED)
HALF = {torch.float32: 0.0, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}


def assert_output(found: Output, expected: Dense, dtype: torch.dtype = torch.float32) -> None:
    assert found.out is not None and expected.out is not None
    error = (found.out.double() - expected.out).abs()
    allowed = (2e-6 + 5e-7 * expected.size) * (1 + expected.out.abs()) + HALF[dtype] * expected.out.abs()
    assert (error <= 4 * allowed).all(), f"out is off by {error.max():.1e}"
    assert found.lse is not None
    both_empty = (found.lse == -torch.inf) == (expected.lse == -torch.inf)
    assert both_empty.all(), "empty rows differ"
    seen = expected.lse > -torch.inf
    off = (found.lse.double() - expected.lse)[seen].abs()
    assert (off <= (1e-6 + 2.4e-7 * (expected.size[..., 0] + expected.lse.abs()))[seen]).all(), "lse is off"


@thorough
@given(plans(dtypes=tuple(HALF)))
def test_output_equals_the_dense_computation(plan: core.Plan) -> None:
    assert_output(NATIVE.run(plan), dense(plan), plan.q.dtype)


@thorough
@given(plans())
def test_every_weight_equals_the_dense_computation(plan: core.Plan) -> None:
    (_, weights), *_ = NATIVE.run(plan, core.Watch((core.Pool(0, 0),)), output=False).statistics
    expected = dense(plan)
    error = (weights.double() - expected.weights).abs()
    assert (error <= 1e-6 + 2.4e-7 * expected.size * expected.weights).all(), f"weights are off by {error.max():.1e}"


@thorough
@given(plans(), st.booleans(), st.booleans())
def test_every_statistic_equals_the_dense_computation(plan: core.Plan, scaled: bool, padded: bool) -> None:
    assert_statistics(plan, scaled, padded)


@thorough
@given(plans(dtypes=tuple(HALF), queries=(1,)), st.booleans(), st.booleans())
def test_every_statistic_of_one_row_equals_the_dense_computation(plan: core.Plan, scaled: bool, padded: bool) -> None:
    assert_statistics(plan, scaled, padded)


def assert_statistics(plan: core.Plan, scaled: bool, padded: bool) -> None:
    batch, heads, queries, _ = plan.q.shape
    watch = everything(plan)
    counted = torch.rand(batch, queries) < 0.7 if padded else None
    if scaled:
        statistics = tuple(s for s in watch.statistics if not isinstance(s, core.RowEntropy))
        watch = core.Watch(statistics, torch.rand(batch, heads, plan.k.shape[2]))
    watch = dataclasses.replace(watch, counted=counted)
    expected = dense(plan)
    found = NATIVE.run(plan, watch, output=False)
    farthest = float((plan.query_positions.max() - plan.key_positions.min()).abs()) + plan.k.shape[2]
    loose = float(expected.size.max()) / 20 + 1
    for wanted, result in zip(watch.statistics, found.statistics, strict=True):
        name = type(wanted).__name__
        want = statistic(wanted, plan, watch, expected.weights)
        if isinstance(wanted, core.TopK):
            assert isinstance(result, tuple)
            error = (result[0].double() - want[0]).abs().max()
            picked = statistic(core.Pool(0, 0), plan, watch, expected.weights)[0]
            named = result[1].clamp(min=0).long()
            again = torch.where(result[1] >= 0, picked.gather(-1, named), 0)
            assert (again - result[0]).abs().max() <= 3e-6 * loose, "a top-k key does not have its weight"
        elif isinstance(wanted, core.Pool):
            assert isinstance(result, tuple)
            error = max((r.double() - w).abs().max() for r, w in zip(result, want, strict=True))
        else:
            assert isinstance(result, torch.Tensor) and isinstance(want, torch.Tensor)
            error = (result.double() - want).abs().max()
        rows = {"ColumnMass": queries, "DistanceHistogram": queries, "Pool": 16.0, "RowDistance": farthest}
        assert error <= 1e-5 * loose * rows.get(name, 1), f"{name} is off by {error:.1e}"


@thorough
@given(plans(dtypes=tuple(HALF)))
def test_watching_changes_no_bit_of_the_output(plan: core.Plan) -> None:
    alone, watched = NATIVE.run(plan), NATIVE.run(plan, everything(plan))
    for name in ("out", "row_max", "row_log_sum"):
        assert torch.equal(getattr(alone, name), getattr(watched, name)), name


def test_a_thousand_keys_and_far_offsets() -> None:
    plan = simple(1000, 1000, width=64)
    plan = dataclasses.replace(plan, terms=(*plan.terms, core.KeyBias(torch.full((1, 1, 1000), 1000.0))))
    found = NATIVE.run(plan, everything(plan))
    expected = dense(plan)
    assert_output(found, expected)
    assert isinstance(found.statistics[0], torch.Tensor)
    off = (found.statistics[0].double() - torch.special.entr(expected.weights).sum(-1)).abs().max()
    assert off <= 1e-3, f"entropy is off by {off:.1e} at scores near 1,000, where a float32 score has 6e-5"


@pytest.mark.parametrize("seen", ["causal", "window and sinks", "full"])
def test_long_rows_that_are_not_kept_are_computed_once_more(seen: str) -> None:
    """A row that sees more keys than a block keeps gives the same statistics as one that sees fewer."""
    keys = 16384 + 500
    plan = simple(3, keys, heads=2, groups=1, width=8, kind=seen)
    watch = everything(plan)
    expected = dense(plan).weights
    for wanted, result in zip(watch.statistics, NATIVE.run(plan, watch).statistics, strict=True):
        want = statistic(wanted, plan, watch, expected)
        pairs = zip(result, want, strict=True) if isinstance(result, tuple) else [(result, want)]
        if not isinstance(wanted, core.TopK):
            for found, right in pairs:
                assert ((found.double() - right).abs() <= 2e-5 * (1 + right.abs())).all(), type(wanted).__name__


def test_peaked_rows() -> None:
    plan = simple(200, 200, width=16)
    plan = dataclasses.replace(plan, q=plan.q * 50)
    assert_output(NATIVE.run(plan), dense(plan))


def test_a_sink_far_above_every_score_takes_all() -> None:
    plan = dataclasses.replace(simple(), softmax=core.Softmax(torch.tensor([200.0, 60.0, 0.0, -200.0])))
    (_, weights), *_ = NATIVE.run(plan, core.Watch((core.Pool(0, 0),))).statistics
    expected = dense(plan)
    right = expected.weights[:, 1:]
    assert (weights[:, 0] == 0).all()
    assert ((weights[:, 1:].double() - right).abs() <= 2e-5 * right + 1e-37).all()
    found = NATIVE.run(plan)
    assert found.row_max is not None and found.row_log_sum is not None
    again = (found.row_max.double() + found.row_log_sum.double() - expected.lse).abs()
    assert (again <= 1e-4).all()


def test_empty_rows_give_zeros() -> None:
    plan = simple(kind="nothing")
    found = NATIVE.run(plan, everything(plan))
    assert found.out is not None and (found.out == 0).all()
    assert (found.row_max == -torch.inf).all() and (found.row_log_sum == 0).all()
    for result in found.statistics:
        for tensor in result if isinstance(result, tuple) else (result,):
            assert (tensor == (-1 if tensor.dtype == torch.int32 else 0)).all()


@pytest.mark.parametrize("queries,keys", [(0, 5), (5, 0), (0, 0)])
def test_no_queries_or_no_keys(queries: int, keys: int) -> None:
    seen = ranges.full(queries, keys)
    shapes = (1, 2, queries, 4), (1, 2, keys, 4), (1, 2, keys, 4)
    q, k, v = (torch.zeros(shape) for shape in shapes)
    at = torch.zeros(1, queries, dtype=torch.int64), torch.zeros(1, keys, dtype=torch.int64)
    plan = core.Plan(q, k, v, *at, (core.Dot(1.0),), seen, core.Softmax())
    found = NATIVE.run(plan, core.Watch((core.ColumnMass(), core.RowEntropy())))
    assert found.out is not None and found.out.shape == (1, 2, queries, 4) and (found.out == 0).all()
    assert found.statistics[0].shape == (1, 2, keys) and (found.statistics[0] == 0).all()


def test_keys_that_nobody_sees_are_never_read() -> None:
    plan = simple(130, 130, kind="window and sinks")
    hidden = ~mask("window and sinks", 1, 1, 130, 130).dense()[0, 0].any(0)
    plan = dataclasses.replace(plan, ranges=ranges.from_key_flags(torch.arange(130)[None] % 7 != 3, 130))
    hidden = torch.arange(130) % 7 == 3
    clean = NATIVE.run(plan, everything(plan))
    torch.manual_seed(0)
    watch = everything(plan)
    clean = NATIVE.run(plan, watch)
    k, v = plan.k.clone(), plan.v.clone()
    k[:, :, hidden], v[:, :, hidden] = torch.nan, torch.nan
    dirty = NATIVE.run(dataclasses.replace(plan, k=k, v=v), watch)
    assert torch.equal(clean.out, dirty.out)
    for a, b in zip(clean.statistics, dirty.statistics, strict=True):
        for x, y in zip(a, b, strict=True) if isinstance(a, tuple) else [(a, b)]:
            assert torch.equal(x, y)


def test_a_visible_nan_is_not_hidden() -> None:
    plan = simple()
    k = plan.k.clone()
    k[0, 0, 5] = torch.nan
    out = NATIVE.run(dataclasses.replace(plan, k=k)).out
    assert out is not None and out[0, 0, 5:].isnan().all() and not out[0, 0, :5].isnan().any()


def test_a_row_has_the_same_bits_in_any_company() -> None:
    plan = simple(150, 150, batch=3)
    whole = NATIVE.run(plan).out
    assert whole is not None
    for rows in (slice(0, 1), slice(70, 71), slice(64, 150), slice(3, 90)):
        part = dataclasses.replace(
            plan,
            q=plan.q[1:2, :, rows],
            k=plan.k[1:2],
            v=plan.v[1:2],
            query_positions=plan.query_positions[1:2, rows],
            key_positions=plan.key_positions[1:2],
            ranges=plan.ranges.rows(rows.start, rows.stop),
        )
        assert torch.equal(NATIVE.run(part).out, whole[1:2, :, rows])


def test_bits_do_not_depend_on_the_number_of_threads() -> None:
    plan = simple(700, 700, batch=2)
    watch = everything(plan)
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found.append(NATIVE.run(plan, watch))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert torch.equal(found[0].out, other.out)
        for a, b in zip(found[0].statistics, other.statistics, strict=True):
            for x, y in zip(a, b, strict=True) if isinstance(a, tuple) else [(a, b)]:
                assert torch.equal(x, y)


def test_output_lies_as_the_queries_do() -> None:
    plan = simple()
    q = plan.q.transpose(1, 2).contiguous().transpose(1, 2)
    found = NATIVE.run(dataclasses.replace(plan, q=q)).out
    assert found is not None and found.transpose(1, 2).is_contiguous()
    assert torch.equal(found, NATIVE.run(plan).out)


def test_refusals_name_the_part_and_the_reason() -> None:
    plan = simple()
    twice = core.Watch((core.TopK(2), core.TopK(3)))
    assert "TopK: is watched twice" in str(NATIVE.refuses(plan, twice, False))
    assert "Dot: occurs twice" in str(NATIVE.refuses(dataclasses.replace(plan, terms=plan.terms * 2), None, False))
    assert "float64" in str(NATIVE.refuses(dataclasses.replace(plan, q=plan.q.double()), None, False))
    assert "contiguous" in str(NATIVE.refuses(dataclasses.replace(plan, k=plan.k.mT.contiguous().mT), None, False))
    learned = core.Slope(torch.zeros(4, requires_grad=True))
    assert "gradient" in str(NATIVE.refuses(dataclasses.replace(plan, terms=(*plan.terms, learned)), None, True))
    with pytest.raises(ValueError, match="cannot run this: Dot: occurs twice"):
        NATIVE.run(dataclasses.replace(plan, terms=plan.terms * 2))
    unknown = dataclasses.replace(plan, query_positions=torch.full((1, 100), -(1 << 62)))
    assert NATIVE.refuses(unknown, None, False) is None
    assert "positions" in str(NATIVE.refuses(unknown, core.Watch((core.RowDistance(),)), False))
    assert NATIVE.refuses(plan, everything(plan), True) is None


@thorough
@given(plans())
def test_gradients_equal_those_of_the_dense_computation(plan: core.Plan) -> None:
    assert plan.v is not None
    own = [x.detach().clone().requires_grad_() for x in (plan.q, plan.k, plan.v)]
    out = NATIVE.run(dataclasses.replace(plan, q=own[0], k=own[1], v=own[2])).out
    right = [x.detach().double().requires_grad_() for x in own]
    expected = dense(dataclasses.replace(plan, q=right[0], k=right[1], v=right[2]))
    assert out is not None and expected.out is not None
    seed = torch.randn(out.shape)
    found = torch.autograd.grad(out, own, seed)
    if not expected.out.requires_grad:
        return
    wanted = torch.autograd.grad(expected.out, right, seed.double())
    loose = float(expected.size.detach().max()) / 20 + 1
    for name, a, b in zip("qkv", found, wanted, strict=True):
        error = float((a.double() - b).abs().max() / (1 + b.abs().max()))
        assert error <= 2e-5 * loose, f"the gradient of {name} is off by {error:.1e} of its size"


@pytest.mark.parametrize("seen", ["causal", "nothing", "full"])
def test_gradients_of_a_scale_and_a_sink(seen: str) -> None:
    plan = simple(70, 70, width=8, kind=seen)
    scale, sink = torch.rand(4, requires_grad=True), torch.randn(4, requires_grad=True)
    heads = (scale, sink)

    def with_heads(scale: torch.Tensor, sink: torch.Tensor) -> core.Plan:
        terms = (core.Dot(scale), core.Softcap(3.0))
        return dataclasses.replace(plan, terms=terms, softmax=core.Softmax(sink))

    out = NATIVE.run(with_heads(*heads)).out
    expected = dense(with_heads(*(x.double() for x in heads))).out
    assert out is not None and expected is not None
    seed = torch.randn(out.shape)
    found = torch.autograd.grad(out, heads, seed)
    wanted = torch.autograd.grad(expected, heads, seed.double())
    for a, b in zip(found, wanted, strict=True):
        assert (a - b).abs().max() <= 1e-5 * (1 + b.abs().max())


def test_gradients_in_half_precision_come_back_in_it() -> None:
    plan = simple()
    q, k, v = (x.to(torch.bfloat16).requires_grad_() for x in (plan.q, plan.k, plan.v))
    out = NATIVE.run(dataclasses.replace(plan, q=q, k=k, v=v)).out
    assert out is not None and out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert q.grad is not None and q.grad.dtype == torch.bfloat16 and q.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_stored_number_comes_back(dtype: torch.dtype) -> None:
    """One key takes all the weight, so the output is its value: all finite numbers, subnormal ones in half included."""
    numbers = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int16).view(dtype)
    numbers = numbers[numbers.isfinite()]
    if dtype == torch.bfloat16:
        numbers = numbers[numbers.abs() >= torch.finfo(torch.float32).tiny]  # below, float32 itself is flushed to 0
    values = numbers[: numbers.numel() // 31 * 31].view(1, 1, -1, 31)
    count = values.shape[2]
    rows = torch.arange(count)[None]
    q, k = torch.zeros(1, 1, count, 8, dtype=dtype), torch.zeros(1, 1, count, 8, dtype=dtype)
    own = ranges.Ranges(rows[:, None, :, None].int(), rows[:, None, :, None].int() + 1, count)
    found = NATIVE.run(core.Plan(q, k, values, rows, rows, (core.Dot(1.0),), own, core.Softmax())).out
    assert found is not None and torch.equal(found, values)
