"""Ranges say exactly what a dense boolean mask says, whatever is done to them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from regard.core import ranges
from regard.core.ranges import MAX_RUNS, Ranges, TooManyRuns

SIDES = st.integers(1, 12)


@st.composite
def masks(draw: st.DrawFn, queries: int | None = None, keys: int | None = None) -> Tensor:
    """bool [batch or 1, heads or 1, queries, keys], from almost empty to almost full."""
    shape = (
        draw(st.sampled_from([1, 2])),
        draw(st.sampled_from([1, 3])),
        draw(SIDES) if queries is None else queries,
        draw(SIDES) if keys is None else keys,
    )
    seed, share = draw(st.integers(0, 10_000)), draw(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]))
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < share


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    queries, keys = draw(SIDES), draw(SIDES)
    return draw(masks(queries, keys)), draw(masks(queries, keys))


def assert_tidy(table: Ranges) -> None:
    """Sorted, disjoint, not touching, int32, unused places empty."""
    assert table.start.dtype == table.stop.dtype == torch.int32
    assert bool((table.start <= table.stop).all())
    used = table.start < table.stop
    touching = table.start[..., 1:] <= table.stop[..., :-1]
    assert not bool((touching & used[..., 1:] & used[..., :-1]).any())
    assert bool((used[..., :-1] >= used[..., 1:]).all())


@given(masks())
def test_encoding_and_decoding_a_mask_gives_it_back(mask: Tensor) -> None:
    table = ranges.from_dense(mask)
    assert torch.equal(table.dense(), mask)
    assert_tidy(table)


@given(pairs())
def test_and_or_not_are_those_of_booleans(both: tuple[Tensor, Tensor]) -> None:
    a, b = both
    x, y = ranges.from_dense(a), ranges.from_dense(b)
    for found, expected in ((x & y, a & b), (x | y, a | b), (~x, ~a), (~(x & ~y) | y, ~(a & ~b) | b)):
        assert torch.equal(found.dense().expand_as(expected), expected)
        assert_tidy(found)


@given(masks())
def test_counts_hull_and_fullness_are_those_of_the_mask(mask: Tensor) -> None:
    table = ranges.from_dense(mask)
    assert torch.equal(table.counts(), mask.sum(-1))
    keys = mask.flatten(0, 2).any(0).nonzero().flatten().tolist()
    assert table.hull() == ((keys[0], keys[-1] + 1) if keys else (0, 0))
    assert table.is_full() == bool(mask.all())
    square = mask.shape[2] == mask.shape[3]
    assert table.is_square_causal() == (square and bool((mask == torch.ones_like(mask).tril()).all()))


@given(masks(), st.data())
def test_a_part_of_the_table_is_that_part_of_the_mask(mask: Tensor, data: st.DataObject) -> None:
    table = ranges.from_dense(mask)
    first = data.draw(st.integers(0, mask.shape[2]))
    last = data.draw(st.integers(first, mask.shape[2]))
    left = data.draw(st.integers(0, mask.shape[3]))
    right = data.draw(st.integers(left, mask.shape[3]))
    part = table.rows(first, last)
    assert torch.equal(part.dense(left, right), mask[:, :, first:last, left:right])
    heads = [mask.shape[1] - 1, 0]
    assert torch.equal(table.head_slice(heads).dense().expand(-1, 2, -1, -1), mask.expand(-1, 3, -1, -1)[:, heads])


@given(masks())
def test_encoding_a_predicate_does_not_depend_on_the_strips(mask: Tensor) -> None:
    whole = ranges.from_dense(mask)
    before = ranges.STRIP_BYTES
    try:
        for ranges.STRIP_BYTES in (1, 8 * mask.shape[3] * 3, before):
            table = ranges.encode(lambda i, j: mask[:, :, i:j], mask.shape[2], mask.shape[3])
            assert torch.equal(table.dense(), mask)
            assert table.start.shape[3] == whole.start.shape[3]
    finally:
        ranges.STRIP_BYTES = before


@given(st.integers(1, 3), SIDES, SIDES, st.integers(0, 1000))
def test_key_flags_hold_for_every_query(batch: int, queries: int, keys: int, seed: int) -> None:
    flags = torch.rand(batch, keys, generator=torch.Generator().manual_seed(seed)) < 0.5
    table = ranges.from_key_flags(flags, queries)
    assert torch.equal(table.dense(), flags[:, None, None].expand(batch, 1, queries, keys))


@given(st.integers(1, 9), st.integers(-3, 12), st.integers(-3, 12))
def test_between_is_clamped_to_the_keys(keys: int, start: int, stop: int) -> None:
    table = ranges.between(torch.tensor([[[start]]]), torch.tensor([[[stop]]]), keys)
    expected = [start <= key < stop for key in range(keys)]
    assert table.dense().flatten().tolist() == expected
    assert (~table).dense().flatten().tolist() == [not seen for seen in expected]


def test_full_and_causal_tables_know_themselves() -> None:
    assert ranges.full(3, 5).is_full()
    assert not ranges.full(3, 3).is_square_causal()
    causal = ranges.from_dense(torch.ones(1, 1, 4, 4, dtype=torch.bool).tril())
    assert causal.is_square_causal() and not causal.is_full()
    assert ranges.from_dense(torch.ones(1, 1, 1, 1, dtype=torch.bool)).is_square_causal()


def test_axes_without_queries_or_without_keys() -> None:
    for queries, keys in ((0, 5), (5, 0), (0, 0)):
        table = ranges.full(queries, keys)
        assert torch.equal((table & ~table).dense(), torch.zeros(1, 1, queries, keys, dtype=torch.bool))
        mask = torch.ones(1, 1, queries, keys, dtype=torch.bool)
        encoded = ranges.encode(lambda i, j, mask=mask: mask[:, :, i:j], queries, keys)
        assert torch.equal(encoded.dense(), mask)
        assert encoded.hull() == (0, 0)


def test_more_intervals_than_a_table_holds_are_refused_with_their_number() -> None:
    comb = (torch.arange(2 * MAX_RUNS + 2) % 2 == 0)[None, None, None]
    with pytest.raises(TooManyRuns, match=f"{MAX_RUNS + 1} separate intervals .* at most {MAX_RUNS}"):
        ranges.from_dense(comb)
    most = ranges.from_dense(comb[..., : 2 * MAX_RUNS])
    assert most.start.shape[3] == MAX_RUNS
    other = ranges.from_dense(comb[..., 1 : 2 * MAX_RUNS + 1] & (torch.arange(2 * MAX_RUNS) > 2 * MAX_RUNS - 3))
    assert (most & ~most).hull() == (0, 0)
    assert (most | other).counts().item() == MAX_RUNS + 1
    wide = torch.nn.functional.pad(comb[..., : 2 * MAX_RUNS], (0, 4))
    tail = torch.zeros_like(wide)
    tail[..., -2] = True
    with pytest.raises(TooManyRuns, match=f"{MAX_RUNS + 1} separate"):
        ranges.from_dense(wide) | ranges.from_dense(tail)


def test_tables_over_different_keys_do_not_combine() -> None:
    with pytest.raises(ValueError, match="5 and 6 keys"):
        ranges.full(2, 5) & ranges.full(2, 6)
