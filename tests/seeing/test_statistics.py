"""Each statistic against a dense restatement; in any tiling, order, growth; and a user's own."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import regard
from regard.inputs import Inputs, inputs
from regard.parts import masks
from regard.parts.defaults import mechanism_with
from regard.run.choose import observers
from regard.seeing.statistics import (
    DistanceHistogram,
    EffectiveContext,
    Entropy,
    Induction,
    Maximum,
    Overview,
    OwnToken,
    Received,
    SinkMass,
    TopK,
    standard,
)
from regard.seeing.watching import Watching
from regard.statistic import Axis, Block, RowStatistic, State, Statistic, View
from tests.hf.models import BY_NAME, feed
from tests.seeing.dense import dense_overview, dense_statistics

B, H = 2, 3


def axis(length: int, *, padded: int = 0, seed: int = 0) -> Axis:
    """Two sequences of few distinct tokens, the second left-padded."""
    valid = torch.ones(B, length, dtype=torch.bool)
    valid[1, :padded] = False
    ids = torch.randint(0, 5, (B, length), generator=torch.Generator().manual_seed(seed))
    return Axis(valid.long().cumsum(1) - 1, valid, ids, ids == 0)


def weights_of(
    rows: Axis, keys: Axis, *, kind: str = "plain", seed: int = 0, heads: bool = False
) -> tuple[Tensor, Tensor]:
    """Softmax weights and which cells were allowed, some of them by head."""
    make = torch.Generator().manual_seed(seed)
    scores = torch.randn(B, H, rows.length, keys.length, generator=make, dtype=torch.float64)
    scores = scores * {"plain": 1.0, "peaked": 50.0, "subunit": 1.0, "flat": 0.0}[kind]
    allowed = (rows.positions[:, None, :, None] >= keys.positions[:, None, None]) & keys.valid[:, None, None]
    if heads:
        allowed = allowed & (torch.rand(B, H, rows.length, keys.length, generator=make) < 0.7)
    allowed = allowed & rows.valid[:, None, :, None]
    exps = (scores - scores.amax(-1, keepdim=True)).exp() * allowed
    total = exps.sum(-1, keepdim=True) + (1.0 if kind == "subunit" else 0.0)
    return (exps / total.clamp(min=1e-300)).float(), allowed


def view_of(rows: Axis, keys: Axis, kind: str = "plain") -> View:
    same = rows is keys
    return View(B, H, rows, keys, same, "subunit" if kind == "subunit" else "distribution")


def block(weights: Tensor, allowed: Tensor, view: View, rows: slice, keys: slice) -> Block:
    part = allowed[:, :, rows, keys]
    seen = part if not bool(part.all()) else None
    return Block(weights[:, :, rows, keys], seen, rows, keys, view.query.part(rows), view.key.part(keys))


def tiles(rows: int, keys: int, row_step: int, key_step: int) -> list[tuple[slice, slice]]:
    return [
        (slice(i, min(i + row_step, rows)), slice(j, min(j + key_step, keys)))
        for i in range(0, rows, row_step)
        for j in range(0, keys, key_step)
    ]


def once(statistic: Statistic, weights: Tensor, allowed: Tensor, view: View) -> State:
    whole = slice(0, weights.shape[2]), slice(0, weights.shape[3])
    return statistic.of_block(block(weights, allowed, view, *whole), view)


def assert_same(statistic: Statistic, a: State, b: State, view: View) -> None:
    x, y = statistic.finish(a, view), statistic.finish(b, view)
    assert x.keys() == y.keys()
    for name in x:
        exact = x[name].dtype in (torch.float64, torch.int32, torch.int64)
        assert x[name].shape == y[name].shape, name
        assert torch.allclose(
            x[name].double(), y[name].double(), rtol=0 if exact else 1e-6, atol=1e-12 if exact else 1e-6
        ), name
    assert torch.allclose(statistic.summary(x, view), statistic.summary(y, view), atol=1e-6)


EVERY = [
    *standard(resolution=4, k=3),
    DistanceHistogram(bins=3),
    Overview(resolution=64),
    Overview(resolution=1),
    TopK(k=1),
    TopK(k=1000),
    SinkMass(count=1),
]
MAPS = {"overview", "mass"}


@pytest.mark.parametrize("kind", ["plain", "peaked", "subunit", "flat"])
@pytest.mark.parametrize("length", [1, 2, 13])
def test_statistics_equal_dense_ones(length: int, kind: str) -> None:
    over = axis(length, padded=length // 3)
    weights, allowed = weights_of(over, over, kind=kind)
    view = view_of(over, over, kind)
    k = min(8, length)
    expected = dense_statistics(
        weights, allowed, over.positions, over.positions, over.valid, over.ids, over.special, k=k
    )
    bounds = {"entropy": 1e-5 * (1 + math.log(length)), "received": 1e-5 * length, "distance": 1e-5 * length}
    bounds["span"] = 1e-5 * (1 + math.log(length)) * length
    for statistic in (*standard(resolution=4), OwnToken()):
        if statistic.name == "mass" and kind != "subunit":
            assert statistic.undefined(view) is not None
            continue
        assert statistic.undefined(view) is None
        found = statistic.finish(once(statistic, weights, allowed, view), view)
        if statistic.name == "overview":
            mean, largest = dense_overview(weights, allowed, over.valid, 4)
            assert torch.allclose(found["mean"].double(), mean.double(), atol=1e-6)
            assert torch.equal(found["max"], largest)
            continue
        value = next(iter(found.values())).double()
        assert (value - expected[statistic.name]).abs().max() <= bounds.get(statistic.name, 1e-5), statistic.name
        if statistic.name == "top":
            rest = weights.double().sum(-1) - expected["top"].sum(-1)
            assert (found["rest"] - rest).abs().max() <= 1e-6 and bool((found["rest"] >= 0).all())
            at = found["keys"].clamp(min=0).long()
            assert torch.equal(weights.gather(-1, at)[found["keys"] >= 0], found["weights"][found["keys"] >= 0])


@settings(max_examples=15)
@given(st.data())
def test_states_merge_in_any_order_and_any_tiling(data: st.DataObject) -> None:
    rows = axis(data.draw(st.integers(1, 11)), padded=data.draw(st.integers(0, 1)))
    same = data.draw(st.booleans())
    keys = rows if same else axis(data.draw(st.integers(1, 11)), seed=1)
    kind = data.draw(st.sampled_from(["plain", "peaked", "subunit"]))
    weights, allowed = weights_of(
        rows, keys, kind=kind, seed=data.draw(st.integers(0, 99)), heads=data.draw(st.booleans())
    )
    view = view_of(rows, keys, kind)
    parts = data.draw(
        st.permutations(tiles(rows.length, keys.length, data.draw(st.integers(1, 11)), data.draw(st.integers(1, 11))))
    )
    for statistic in EVERY:
        if statistic.undefined(view) is not None:
            continue
        one = once(statistic, weights, allowed, view)
        states = [statistic.of_block(block(weights, allowed, view, *part), view) for part in parts]
        assert_same(statistic, one, reduce(statistic.merge, map(deepcopy, states)), view)
        while len(states) > 1:
            b, a = states.pop(data.draw(st.integers(0, len(states) - 1))), states.pop()
            states.append(statistic.merge(a, b))
        assert_same(statistic, one, states[0], view)


@pytest.mark.parametrize("statistic", EVERY, ids=lambda s: f"{s.name}-{list(vars(s).values())[-1]}")
def test_growing_row_by_row_equals_once(statistic: Statistic) -> None:
    """As a generation does: the view ends where the sequence does by now, chunk by chunk."""
    whole = axis(23, padded=2)
    weights, allowed = weights_of(whole, whole, kind="subunit")
    state: State | None = None
    for end in (5, 6, 7, 8, 12, 13, 21, 22, 23):
        begin = {5: 0, 12: 8, 21: 13}.get(end, end - 1)
        so_far = whole.part(slice(0, end))
        view = View(B, H, so_far, so_far, True, "subunit")
        part = statistic.of_block(block(weights, allowed, view, slice(begin, end), slice(0, end)), view)
        state = part if state is None else statistic.merge(state, part)
    view = view_of(whole, whole, "subunit")
    assert state is not None
    assert_same(statistic, once(statistic, weights, allowed, view), state, view)


@pytest.mark.parametrize("resolution", [1, 2, 5, 8])
def test_states_of_an_early_and_a_late_part_merge_at_the_coarser_cells(resolution: int) -> None:
    statistic, whole = Overview(resolution=resolution), axis(20)
    weights, allowed = weights_of(whole, whole)
    early = whole.part(slice(0, 7))
    before = View(B, H, early, early, True)
    a = statistic.of_block(block(weights, allowed, before, slice(0, 7), slice(0, 7)), before)
    view = view_of(whole, whole)
    b = statistic.of_block(block(weights, allowed, view, slice(7, 20), slice(0, 20)), view)
    for state in (statistic.merge(deepcopy(a), b), statistic.merge(deepcopy(b), a)):
        assert_same(statistic, once(statistic, weights, allowed, view), state, view)


def test_an_overview_of_cells_allowed_for_some_heads_only_counts_each_head() -> None:
    """One block whose mask all heads share, and one where they differ, merged from both sides."""
    statistic, whole = Overview(resolution=2), axis(8)
    view = view_of(whole, whole)
    weights, allowed = weights_of(whole, whole, heads=True)
    shared = allowed[:, :1, :4] | True
    top = Block(weights[:, :, :4] * 0, shared, slice(0, 4), slice(0, 8), whole.part(slice(0, 4)), whole)
    low = block(weights, allowed, view, slice(4, 8), slice(0, 8))
    a, b = (statistic.of_block(part, view) for part in (top, low))
    for state in (statistic.merge(deepcopy(a), b), statistic.merge(deepcopy(b), a)):
        count = statistic.finish(state, view)["count"]
        assert bool((count[:, :, 0] == 16).all())
        expected = allowed[:, :, 4:].reshape(B, H, 1, 4, 2, 4).sum((3, 5)).double()
        assert torch.equal(count[:, :, 1:], expected)


def test_ties_go_to_the_lowest_key() -> None:
    whole = axis(9)
    weights, allowed = weights_of(whole, whole, kind="flat")
    view = view_of(whole, whole)
    statistic = TopK(k=3)
    for row_step, key_step in ((9, 9), (2, 4), (9, 1)):
        parts = reversed(tiles(9, 9, row_step, key_step))
        state = reduce(statistic.merge, [statistic.of_block(block(weights, allowed, view, *p), view) for p in parts])
        keys = statistic.finish(state, view)["keys"][0, 0]
        assert keys[0].tolist() == [0, -1, -1] and keys[1].tolist() == [0, 1, -1]
        assert all(row == [0, 1, 2] for row in keys[2:].tolist())


def test_sums_over_many_rows_are_float64() -> None:
    """20,000 rows that each give a key a little: float32 sums would be off by 1e-5 of them and more."""
    rows, step = 20_000, 500
    query = Axis(torch.arange(rows)[None], torch.ones(1, rows, dtype=torch.bool))
    key = query.part(slice(0, 4))
    view = View(1, 1, query, key, False)
    weights = torch.full((1, 1, step, 4), 1 / 3).float()
    weights[..., 3] = 1e-7
    received, overview = Received(), Overview(resolution=1)
    slots = [slice(begin, begin + step) for begin in range(0, rows, step)]
    parts = [Block(weights, None, at, slice(0, 4), query.part(at), key) for at in slots]
    sums = reduce(received.merge, [received.of_block(part, view) for part in parts])
    cells = reduce(overview.merge, [overview.of_block(part, view) for part in parts])
    exact = weights[0, 0, 0].double() * rows
    assert torch.allclose(received.finish(sums, view)["keys"][0, 0], exact, rtol=1e-12, atol=0)
    assert torch.allclose(cells.sum.live().sum(), exact.sum(), rtol=1e-12, atol=0)


def test_distances_fall_into_exact_bins_at_any_distance() -> None:
    statistic = DistanceHistogram(bins=48)
    edges = [0, 1, 2, 3, 4, *(2**power + d for power in range(3, 46) for d in (-1, 0, 1))]
    key = Axis(torch.tensor([edges]), torch.ones(1, len(edges), dtype=torch.bool))
    query = Axis(torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, 1, dtype=torch.bool))
    view = View(1, 1, query, key, True)
    for place, distance in enumerate(edges):
        weights = torch.zeros(1, 1, 1, len(edges))
        weights[..., place] = 1.0
        state = statistic.of_block(Block(weights, None, slice(0, 1), slice(0, len(edges)), query, key), view)
        assert int(state.argmax()) == distance.bit_length(), distance


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_effective_context_lies_in_the_bin_that_holds_the_share(share: float) -> None:
    size, statistic = 300, EffectiveContext(share=share)
    torch.manual_seed(0)
    at = Axis(torch.arange(size)[None], torch.ones(1, size, dtype=torch.bool))
    view = View(1, 2, at, at, True)
    back = (torch.arange(size)[:, None] - torch.arange(size)).clamp(min=0)
    weights = torch.stack([-back / 7.0, -back / 60.0]).masked_fill(back.T > 0, -torch.inf).softmax(-1)[None]
    whole = Block(weights, None, slice(0, size), slice(0, size), at, at)
    bins = statistic.finish(statistic.of_block(whole, view), view)
    for head in range(2):
        mass = torch.bincount(back.flatten(), weights[0, head].double().flatten()).cumsum(0)
        exact = int((mass / mass[-1] < share).sum())
        number = float(statistic.summary(bins, view)[0, head])
        assert exact.bit_length() == math.ceil(number).bit_length() and abs(number - exact) <= exact / 2 + 1


def test_uniform_peaked_and_empty_rows_have_their_known_numbers() -> None:
    whole = axis(16)
    view = view_of(whole, whole)
    flat, allowed = weights_of(whole, whole, kind="flat")
    sizes = torch.arange(1, 17).double()
    entropy = Entropy().finish(once(Entropy(), flat, allowed, view), view)["rows"]
    assert torch.allclose(entropy[0, 0].double(), sizes.log(), atol=1e-6)
    one = torch.zeros_like(flat)
    one[..., 0] = 1.0
    for statistic, value in ((Entropy(), 0.0), (Maximum(), 1.0), (SinkMass(), 1.0)):
        assert bool((statistic.finish(once(statistic, one, allowed, view), view)["rows"] == value).all())
    for statistic in standard(resolution=4):
        if statistic.undefined(view) is None:
            found = statistic.finish(once(statistic, one * 0, allowed, view), view)
            assert all(bool(torch.isfinite(t.double()).all()) for t in found.values()), statistic.name
            assert bool(torch.isfinite(statistic.summary(found, view)).all()), statistic.name


def test_statistics_say_where_they_mean_nothing() -> None:
    text, patches = axis(4), replace(axis(4), ids=None, special=None)
    cross, image = view_of(text, axis(5)), view_of(patches, patches)
    for statistic in standard():
        said = statistic.undefined(cross)
        assert (said is not None) == (
            statistic.name in {"distance", "distances", "previous", "duplicate", "induction", "mass"}
        )
        said = statistic.undefined(image)
        assert (said is not None) == (statistic.name in {"duplicate", "induction", "special", "mass"})
        assert said is None or (said.count("\n") == 0 and statistic.name in said)
        assert (statistic.norm().undefined(view_of(text, text)) is None) == (statistic.name not in {"entropy", "span"})
        assert statistic.label == statistic.name and statistic.norm().label == f"{statistic.name}:norm"


@pytest.mark.parametrize("make", [lambda: TopK(k=0), lambda: SinkMass(count=0), lambda: Overview(resolution=0)])
def test_sizes_that_mean_nothing_are_refused(make: Callable[[], Statistic]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        make()


@dataclass(frozen=True)
class EvenKeys(RowStatistic):
    """Σ_{j even} a_ij: mass on keys at even positions."""

    name: ClassVar[str] = "even"
    formula: ClassVar[str] = "Σ_{p_j even} a_ij"

    def of_rows(self, block: Block, view: View) -> Tensor:
        return (block.weights * (block.key.positions % 2 == 0)[:, None, None]).sum(-1)


def test_a_users_own_statistic_is_one_class() -> None:
    model, given = BY_NAME["llama"].build(), feed(BY_NAME["llama"], padding="left")
    with torch.no_grad(), regard.attach(model, watch=[EvenKeys(), EvenKeys(of="norm"), Overview()]) as trace:
        model(**given)
    assert trace.statistics["even"].formula == "Σ_{p_j even} a_ij"
    even = trace.axes["decoder"].axis.positions % 2 == 0
    for layer in trace.layers:
        whole = layer.results["overview"]["max"]
        assert torch.allclose(layer.results["even"]["rows"], (whole * even[:, None, None]).sum(-1), atol=1e-6)
        assert layer.summaries["even"].shape == (2, 4) and "even:norm" in layer.results
    assert len(trace.heads("even")) == 8


def test_two_statistics_of_one_label_are_refused() -> None:
    model = BY_NAME["llama"].build()
    with (
        pytest.raises(ValueError, match="two statistics are called 'sink'"),
        regard.attach(model, [SinkMass(1), SinkMass(2)]),
    ):
        pass


def test_watching_a_mechanism_gives_the_statistics_of_its_weights() -> None:
    """Without a model: two calls of a sliding window, the second continuing the first."""
    make = torch.Generator().manual_seed(0)
    q, k = (torch.randn(B, H, 30, 8, generator=make) for _ in range(2))
    whole = axis(30)
    mechanism = mechanism_with("window", "", mask=masks.causal() & masks.window(6) | masks.sinks(1))
    watching = Watching(standard(resolution=8))
    for rows in (slice(0, 17), slice(17, 30)):
        x: Inputs = inputs(
            q[:, :, rows],
            k[:, :, : rows.stop],
            query_positions=whole.positions[:, rows],
            key_positions=whole.positions[:, : rows.stop],
        )
        so_far = whole.part(slice(0, rows.stop))
        watching.absorb(mechanism, x, View(B, H, so_far, so_far, True), rows, 0, None)
    results, _ = watching.finish(view_of(whole, whole))
    dense = regard.weights(q, k, mechanism)
    allowed = dense > 0
    expected = dense_statistics(dense, allowed, whole.positions, whole.positions, whole.valid, whole.ids, whole.special)
    for label, found in results.items():
        if label != "overview":
            assert torch.allclose(next(iter(found.values())).double(), expected[label], atol=2e-4), label
    assert set(watching.undefined) == {"mass"} and watching.used == {"strips"}


def test_the_token_after_a_row_follows_its_own_slot_and_is_no_induction() -> None:
    """Without a causal mask, as in an encoder: of A B A C, row 0 sees key 1 (after itself) and key 3 (after slot 2)."""
    ids = torch.tensor([[7, 8, 7, 9]])
    over = Axis(torch.arange(4)[None], torch.ones(1, 4, dtype=torch.bool), ids)
    view = View(1, 1, over, over, True)
    weights = torch.tensor([0.1, 0.2, 0.3, 0.4]).expand(1, 1, 4, 4)
    part = Block(weights, None, slice(0, 4), slice(0, 4), over, over)
    rows = Induction().finish(Induction().of_block(part, view), view)["rows"][0, 0]
    assert torch.allclose(rows, torch.tensor([0.4, 0.0, 0.2, 0.0]))


@pytest.mark.parametrize("fused", [(), observers()], ids=["strips", "fused"])
def test_mass_on_the_own_token_is_the_diagonal(fused: tuple[Any, ...]) -> None:
    make = torch.Generator().manual_seed(0)
    q, k = (torch.randn(B, H, 9, 8, generator=make) for _ in range(2))
    own, whole = Watching((OwnToken(),), fused), axis(9)
    own.absorb(
        mechanism_with("causal", "", mask=masks.causal()), inputs(q, k), view_of(whole, whole), slice(0, 9), 0, None
    )
    rows = own.finish(view_of(whole, whole))[0]["own"]["rows"]
    assert torch.allclose(rows, regard.weights(q, k, "causal").diagonal(dim1=-2, dim2=-1), atol=1e-6)
    assert OwnToken().undefined(view_of(whole, axis(5))) is not None
