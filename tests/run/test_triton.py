"""The Triton kernels against a dense float64 computation: on a GPU where there is one, else in Triton's interpreter.

The interpreter takes milliseconds for each operation on a tile, so shapes are small and examples few.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

import regard
from regard import core
from regard.core import ranges
from regard.core.ranges import Ranges
from regard.run import choose
from regard.run.output import Output
from regard.run.triton import TRITON, visible, why_unavailable
from tests.run.dense_core import Dense, dense, statistic
from tests.run.plans import MASKS, everything, mask, plans, simple
from tests.run.test_native import assert_output

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
pytestmark = pytest.mark.skipif(why_unavailable(DEVICE) is not None, reason=str(why_unavailable(DEVICE)))

EXAMPLES = int(os.environ.get("REGARD_TEST_EXAMPLES", "8"))
few = settings(max_examples=EXAMPLES, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
HALF = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}


@pytest.fixture(autouse=True)
def _poisoned_memory() -> Iterator[None]:
    """Uninitialised memory is full of NaN, so whatever a kernel forgets to write shows."""
    torch.use_deterministic_algorithms(DEVICE.type == "cpu")
    yield
    torch.use_deterministic_algorithms(False)


def moved(x: Any, device: torch.device = DEVICE) -> Any:
    """Records and results with their tensors on another device."""
    if isinstance(x, Tensor):
        return x.to(device)
    if isinstance(x, tuple):
        return tuple(moved(item, device) for item in x)
    if dataclasses.is_dataclass(x) and not isinstance(x, type):
        return dataclasses.replace(
            x, **{f.name: moved(getattr(x, f.name), device) for f in dataclasses.fields(x) if f.init}
        )
    return x


def run(plan: core.Plan, watch: core.Watch | None = None, output: bool = True) -> Output:
    """On the device and back."""
    found: Output = moved(TRITON.run(moved(plan), moved(watch), output), torch.device("cpu"))
    return found


def assert_same(a: Any, b: Any) -> None:
    """Bit by bit."""
    if isinstance(a, Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, tuple):
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    elif isinstance(a, Output):
        for name in ("out", "row_max", "row_log_sum", "statistics"):
            assert_same(getattr(a, name), getattr(b, name))


# ---- outputs --------------------------------------------------------------------------------------------------------


@few
@given(plans())
def test_output_equals_the_dense_computation(plan: core.Plan) -> None:
    assert_output(run(plan), dense(plan))


@settings(few, max_examples=EXAMPLES // 2)
@given(plans(dtypes=tuple(HALF)))
def test_half_precision_rounds_weights_and_output_once(plan: core.Plan) -> None:
    assert plan.v is not None
    found, expected = run(plan), dense(plan)
    assert found.out is not None and expected.out is not None and found.out.dtype == plan.q.dtype
    summed = dense(dataclasses.replace(plan, v=plan.v.abs())).out
    assert summed is not None
    ulps = 2 if DEVICE.type == "cuda" else 4  # the interpreter cuts digits off where a GPU rounds
    allowed = ulps * HALF[plan.q.dtype] * summed + 1e-5 * (1 + expected.size)
    assert ((found.out.double() - expected.out).abs() <= allowed).all()


@few
@given(plans())
def test_every_weight_equals_the_dense_computation(plan: core.Plan) -> None:
    (_, weights), *_ = run(plan, core.Watch((core.Pool(0, 0),)), output=False).statistics
    expected = dense(plan)
    error = (weights.double() - expected.weights).abs()
    assert (error <= 1e-6 + 2.4e-7 * expected.size * expected.weights).all(), f"weights are off by {error.max():.1e}"


@pytest.mark.parametrize("loud", [1.0, 50.0])
@pytest.mark.parametrize("keys", [1, 63, 130])
def test_peaked_rows(keys: int, loud: float) -> None:
    plan = simple(keys, keys, heads=2, groups=1, width=16)
    plan = dataclasses.replace(plan, q=plan.q * loud)
    assert_output(run(plan), dense(plan))


def test_scores_near_a_thousand_keep_their_weights() -> None:
    plan = simple(70, 130, heads=2, width=16)
    far = core.KeyBias(torch.full((1, 1, 130), 1000.0))
    plan = dataclasses.replace(plan, terms=(*plan.terms, far))
    weights = run(plan, core.Watch((core.Pool(0, 0),))).statistics[0][1]
    assert ((weights.double() - dense(plan).weights).abs() <= 1e-4).all()
    assert ((weights.double().sum(-1) - 1).abs() <= 1e-6).all(), "both computations of a weight must agree"


def test_a_sink_far_above_every_score_takes_all() -> None:
    sink = torch.tensor([200.0, 60.0, 0.0, -200.0])
    plan = dataclasses.replace(simple(40, 40), softmax=core.Softmax(sink))
    found, expected = run(plan, core.Watch((core.Pool(0, 0),))), dense(plan)
    weights = found.statistics[0][1]
    right = expected.weights[:, 1:]
    assert (weights[:, 0] == 0).all() and ((weights[:, 1:].double() - right).abs() <= 2e-5 * right + 1e-37).all()
    assert found.row_max is not None and found.row_log_sum is not None
    assert ((found.row_max.double() + found.row_log_sum.double() - expected.lse).abs() <= 1e-4).all()


def test_a_negative_scale_looks_for_the_right_maximum() -> None:
    plan = dataclasses.replace(simple(40, 40), terms=(core.Dot(-0.7),))
    assert_output(run(plan), dense(plan))


def test_empty_rows_give_zeros() -> None:
    plan = dataclasses.replace(simple(40, 40, kind="nothing"), softmax=core.Softmax(torch.ones(4)))
    found = run(plan, everything(plan))
    assert found.out is not None and (found.out == 0).all()
    assert (found.row_max == -torch.inf).all() and (found.row_log_sum == 0).all()
    for result in found.statistics:
        for tensor in result if isinstance(result, tuple) else (result,):
            assert (tensor == (-1 if tensor.dtype == torch.int32 else 0)).all()


@pytest.mark.parametrize("queries,keys", [(0, 5), (5, 0), (0, 0)])
def test_no_queries_or_no_keys(queries: int, keys: int) -> None:
    shapes = (1, 2, queries, 4), (1, 2, keys, 4), (1, 2, keys, 4)
    at = torch.zeros(1, queries, dtype=torch.int64), torch.zeros(1, keys, dtype=torch.int64)
    seen, dot = ranges.full(queries, keys), (core.Dot(1.0),)
    plan = core.Plan(*(torch.zeros(shape) for shape in shapes), *at, dot, seen, core.Softmax())
    found = run(plan, core.Watch((core.ColumnMass(), core.RowEntropy(), core.Pool(1, 1))))
    assert found.out is not None and found.out.shape == (1, 2, queries, 4) and (found.out == 0).all()
    assert found.statistics[0].shape == (1, 2, keys) and (found.statistics[0] == 0).all()


@pytest.mark.parametrize("holes", [False, True])
def test_what_nobody_sees_is_never_used(holes: bool) -> None:
    """NaN in padding keys, in values, in a query that sees nothing and in what the statistics read there."""
    plan = simple(70, 70, heads=2, groups=1, width=16)
    valid = (torch.arange(70) % 30 != 3) if holes else torch.arange(70) < 61
    seen = plan.ranges & ranges.from_key_flags(valid[None], 70)
    seen = seen & ranges.between(torch.zeros(1, 1, 70), torch.where(torch.arange(70) == 9, 0, 70)[None, None], 70)
    clean = dataclasses.replace(plan, ranges=seen)
    q, k, v, scale = plan.q.clone(), plan.k.clone(), plan.v.clone(), torch.rand(1, 2, 70)
    q[:, :, 9] = k[:, :, ~valid] = v[:, :, ~valid] = torch.nan
    poisoned = scale.masked_fill(~valid, torch.nan)
    dirty = dataclasses.replace(clean, q=q, k=k, v=v)
    watch = core.Watch((core.RowMax(), core.RowSum(torch.ones(1, 70)), core.TopK(3), core.ColumnMass()))
    assert_same(
        run(clean, dataclasses.replace(watch, key_scale=scale)),
        run(dirty, dataclasses.replace(watch, key_scale=poisoned)),
    )
    for a, b in zip(grads(clean)[1], grads(dirty)[1], strict=True):
        assert torch.equal(a, b)


def test_a_visible_nan_is_not_hidden() -> None:
    plan = simple(70, 70, heads=2, groups=1)
    plan.k[0, 0, 5] = torch.nan
    out = run(plan).out
    assert out is not None and out[0, 0, 5:].isnan().all() and not out[0, 0, :5].isnan().any()


def test_tensors_are_taken_as_they_lie() -> None:
    plan = simple(40, 40)
    q = plan.q.transpose(1, 2).contiguous().transpose(1, 2)
    k, v = plan.k.mT.contiguous().mT, plan.v.expand(1, -1, -1, -1)[:, :, ::1]
    found = run(dataclasses.replace(plan, q=q, k=k, v=v)).out
    assert found is not None and found.transpose(1, 2).is_contiguous()
    assert torch.equal(found, run(plan).out)


# ---- statistics -----------------------------------------------------------------------------------------------------


@settings(few, max_examples=EXAMPLES // 2)
@given(plans(), st.booleans(), st.booleans())
def test_every_statistic_equals_the_dense_computation(plan: core.Plan, scaled: bool, padded: bool) -> None:
    batch, heads, queries, _ = plan.q.shape
    watch = everything(plan)
    counted = torch.rand(batch, queries) < 0.7 if padded else None
    if scaled:
        statistics = tuple(s for s in watch.statistics if not isinstance(s, core.RowEntropy))
        watch = core.Watch(statistics, torch.rand(batch, heads, plan.k.shape[2]))
    check_statistics(plan, dataclasses.replace(watch, counted=counted))


@pytest.mark.parametrize("pool", [core.Pool(7, 8, 37), core.Pool(2, 7, 5), core.Pool(7, 1, 200), core.Pool(0, 0, 1)])
def test_cells_of_any_size_and_offset(pool: core.Pool) -> None:
    check_statistics(simple(70, 150, heads=1, groups=1, width=16), core.Watch((pool,)))


def test_equal_weights_are_ranked_by_the_lower_key() -> None:
    """Twenty equal keys in tiles that are visited in another order than they lie."""
    plan = simple(4, 200, heads=1, groups=1, width=16, kind="full")
    plan = dataclasses.replace(plan, q=torch.zeros_like(plan.q))
    weights, keys = run(plan, core.Watch((core.TopK(16),))).statistics[0]
    assert (keys == torch.arange(16)).all() and (weights - 1 / 200).abs().max() < 1e-8


def check_statistics(plan: core.Plan, watch: core.Watch) -> None:
    expected, queries = dense(plan), plan.q.shape[2]
    farthest = float((plan.query_positions.max() - plan.key_positions.min()).abs()) + plan.k.shape[2]
    loose = float(expected.size.max()) / 20 + 1
    for wanted, result in zip(watch.statistics, run(plan, watch, output=False).statistics, strict=True):
        name = type(wanted).__name__
        want = statistic(wanted, plan, watch, expected.weights)
        pairs = zip(result, want, strict=True) if isinstance(result, tuple) else [(result, want)]
        if isinstance(wanted, core.TopK):
            pairs = [(result[0], want[0])]
            picked = statistic(core.Pool(0, 0), plan, watch, expected.weights)[0]
            again = torch.where(result[1] >= 0, picked.gather(-1, result[1].clamp(min=0).long()), 0)
            assert (again - result[0]).abs().max() <= 3e-6 * loose, "a top-k key does not have its weight"
        error = max(float((a.double() - b).abs().max()) for a, b in pairs)
        rows = {"ColumnMass": queries, "DistanceHistogram": queries, "Pool": 16.0, "RowDistance": farthest}
        assert error <= 1e-5 * loose * rows.get(name, 1), f"{name} is off by {error:.1e}"


# ---- the same bits --------------------------------------------------------------------------------------------------


def test_bits_depend_neither_on_the_batch_nor_on_the_watch_nor_on_the_run() -> None:
    plan = simple(70, 130, heads=2, groups=1, width=16, batch=2, kind="window and sinks")
    watch = core.Watch((core.RowEntropy(), core.TopK(2), core.ColumnMass(), core.DistanceHistogram(6), core.Pool(4, 5)))
    together = run(plan, watch)
    assert_same(together, run(plan, watch))
    alone = dataclasses.replace(
        plan,
        q=plan.q[1:],
        k=plan.k[1:],
        v=plan.v[1:],
        query_positions=plan.query_positions[1:],
        key_positions=plan.key_positions[1:],
    )
    single = run(alone, watch)
    assert torch.equal(single.out[0], together.out[1]) and torch.equal(run(plan).out, together.out)
    for a, b in zip(single.statistics, together.statistics, strict=True):
        for x, y in zip(a, b, strict=True) if isinstance(a, tuple) else [(a, b)]:
            assert torch.equal(x[0], y[1])


# ---- gradients ------------------------------------------------------------------------------------------------------


def grads(plan: core.Plan) -> tuple[Tensor, list[Tensor], Tensor]:
    """(output, gradients of q, k and v, the gradient of the output)."""
    there = moved(plan)
    own = [x.detach().clone().requires_grad_() for x in (there.q, there.k, there.v)]
    out = TRITON.run(dataclasses.replace(there, q=own[0], k=own[1], v=own[2])).out
    assert out is not None
    torch.manual_seed(0)
    seed = torch.randn(out.shape).to(out.dtype)
    found = torch.autograd.grad(out, own, seed.to(out.device))
    return out.detach().cpu(), [x.cpu() for x in found], seed


@few
@given(plans())
def test_gradients_equal_those_of_the_dense_computation(plan: core.Plan) -> None:
    assert plan.v is not None
    _, found, seed = grads(plan)
    right = [x.detach().double().requires_grad_() for x in (plan.q, plan.k, plan.v)]
    expected: Dense = dense(dataclasses.replace(plan, q=right[0], k=right[1], v=right[2]))
    assert expected.out is not None
    if not expected.out.requires_grad:
        return
    wanted = torch.autograd.grad(expected.out, right, seed.double())
    loose = float(expected.size.detach().max()) / 20 + 1
    for name, a, b in zip("qkv", found, wanted, strict=True):
        error = float((a.double() - b).abs().max() / (1 + b.abs().max()))
        assert error <= 2e-5 * loose, f"the gradient of {name} is off by {error:.1e} of its size"


def test_gradients_have_the_same_bits_again_and_come_back_in_their_type() -> None:
    plan = simple(70, 70, heads=4, groups=2, width=16)
    plan = dataclasses.replace(plan, q=plan.q.bfloat16(), k=plan.k.bfloat16(), v=plan.v.bfloat16())
    first, again = grads(plan)[1], grads(plan)[1]
    for a, b in zip(first, again, strict=True):
        assert a.dtype == torch.bfloat16 and a.isfinite().all() and torch.equal(a, b)


# ---- which tiles are visited ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("lead", [0, 5])
def test_tiles_are_classed_as_the_dense_mask_says(kind: str, lead: int) -> None:
    torch.manual_seed(0)
    seen = mask(kind, 2, 3, 70, 90)
    seen = Ranges(seen.start, seen.stop, 90)
    found = visible.classes(seen, 16, 8, lead)
    allowed = torch.nn.functional.pad(seen.dense(), (0, -90 % 8, lead, -(70 + lead) % 16))
    rows = torch.nn.functional.pad(torch.ones(70, dtype=torch.bool), (lead, -(70 + lead) % 16))
    tiles = allowed.unflatten(3, (-1, 8)).unflatten(2, (-1, 16))
    full = (tiles | ~rows.view(-1, 16)[None, None, :, :, None, None]).all(5).all(3)
    torch.testing.assert_close(found > 0, tiles.any(5).any(3))
    assert not ((found == visible.FULL) & ~full).any(), "a tile with a hidden cell is called full"
    if kind in ("full", "causal", "documents"):
        assert torch.equal(found == visible.FULL, full)


# ---- choosing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["causal", "causal & window(9) | sinks(2)", "softcap(5) & causal"])
def test_attention_by_name(text: str) -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(1, 4, 40, 16), torch.randn(1, 2, 40, 16), torch.randn(1, 2, 40, 24)
    try:
        expected = regard.attention(q, k, v, text, backend="strips")
    except ValueError:
        pytest.skip(f"{text} is no text form")
    found = regard.attention(*(moved((q, k, v))), text, backend="triton").cpu()
    assert (found - expected).abs().max() < 1e-5


def test_on_the_cpu_the_interpreter_is_taken_only_by_name() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert "triton" not in choose.candidates(cpu) and choose.candidates(cuda)[0] == "triton"
    assert TRITON not in choose.observers("auto", cpu) and choose.observers("auto", cuda) == (TRITON,)
    assert choose.observers("triton", cpu) == (TRITON,)


def test_refusals_name_the_part_and_the_reason() -> None:
    plan = moved(simple(10, 10))

    def why(watch: core.Watch | None = None, grad: bool = False, **changes: Any) -> str:
        return str(TRITON.refuses(dataclasses.replace(plan, **changes), watch, grad))

    assert why() == "None" and why(moved(everything(simple(10, 10))), True) == "None"
    assert "TopK: keeps 17 links a row; triton keeps 1 to 16" in why(core.Watch((core.TopK(17),)))
    assert "Pool: is watched twice" in why(core.Watch((core.Pool(1, 1), core.Pool(2, 2))))
    assert "Dot: occurs twice" in why(terms=plan.terms * 2)
    assert "float64" in why(q=plan.q.double())
    assert "q: is 600 wide" in why(q=torch.zeros(1, 4, 10, 600, device=DEVICE))
    learned = torch.zeros(4, device=DEVICE, requires_grad=True)
    assert why(grad=True, softmax=core.Softmax(learned)) == "None"
    assert "Slope: asks for a gradient; triton has gradients of" in why(
        grad=True, terms=(*plan.terms, core.Slope(learned))
    )
    far = torch.full_like(plan.query_positions, -(1 << 62))
    assert why(query_positions=far) == "None"
    assert "RowDistance: reads positions" in why(core.Watch((core.RowDistance(),)), query_positions=far)
    with pytest.raises(ValueError, match="backend 'triton' cannot run this: Dot: occurs twice"):
        TRITON.run(dataclasses.replace(plan, terms=plan.terms * 2))
