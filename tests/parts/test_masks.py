"""Masks: ranges equal the predicate, whatever is combined; selections by content; what is refused."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from regard.core import ranges
from regard.errors import UserError
from regard.inputs import Inputs, inputs
from regard.lower import encode_mask, ranges_of
from regard.mechanism import Mask
from regard.parts import masks
from regard.parts.relative import Span

simple = st.one_of(
    st.builds(masks.full),
    st.builds(masks.causal),
    st.builds(masks.window, st.integers(1, 9)),
    st.builds(masks.near, st.integers(0, 6), st.integers(0, 6)),
    st.builds(masks.sinks, st.integers(1, 5)),
    st.builds(masks.global_keys, st.integers(1, 5)),
    st.builds(masks.global_tokens, st.integers(1, 5)),
    st.builds(masks.prefix, st.integers(0, 8)),
    st.builds(masks.chunk, st.integers(1, 6)),
    st.builds(masks.every, st.integers(1, 5)),
    st.builds(masks.dilated, st.integers(0, 4), st.integers(1, 4)),
    st.builds(masks.summary, st.integers(3, 6), st.integers(1, 3)),
    st.builds(masks.near_blocks, st.integers(1, 4), st.integers(0, 2)),
    st.builds(masks.random_blocks, st.just(3), st.integers(1, 3), st.just(30), st.integers(0, 5)),
    st.builds(masks.heads, st.integers(0, 1), st.integers(1, 2)),
)
combined = st.recursive(
    simple,
    lambda inner: st.one_of(
        st.builds(masks.And, inner, inner), st.builds(masks.Or, inner, inner), st.builds(masks.Not, inner)
    ),
    max_leaves=4,
)


def example(queries: int, keys: int, offset: int, step: int = 1) -> Inputs:
    q, k = torch.randn(1, 2, queries, 3), torch.randn(1, 2, keys, 3)
    at_q, at_k = offset + torch.arange(queries) * step, torch.arange(keys) * step
    return inputs(q, k, query_positions=at_q, key_positions=at_k)


def dense(mask: Mask, x: Inputs) -> torch.Tensor:
    """The predicate on every pair, [1,H,Tq,Tk]."""
    where = x.tile(slice(0, x.q.shape[2]), slice(0, x.k.shape[2])).where
    return mask(where.batch, where.head, where.query, where.key).expand(1, 2, x.q.shape[2], x.k.shape[2])


@settings(max_examples=150, deadline=None)
@given(combined, st.integers(1, 13), st.integers(1, 17), st.integers(-3, 9), st.integers(1, 3))
def test_ranges_equal_the_predicate(mask: Mask, queries: int, keys: int, offset: int, step: int) -> None:
    x = example(queries, keys, offset, step)
    wanted = dense(mask, x)
    assert torch.equal(ranges_of(mask, x).dense().expand_as(wanted), wanted), str(mask)
    assert torch.equal(encode_mask(mask, x).dense().expand_as(wanted), wanted), str(mask)


@settings(max_examples=60, deadline=None)
@given(simple, simple)
def test_masks_combine_like_sets(a: Mask, b: Mask) -> None:
    x = example(6, 11, 4)
    left, right = dense(a, x), dense(b, x)
    assert torch.equal(dense(masks.And(a, b), x), left & right)
    assert torch.equal(dense(masks.Or(a, b), x), left | right)
    assert torch.equal(dense(masks.Not(masks.And(a, b)), x), dense(masks.Or(masks.Not(a), masks.Not(b)), x))


def test_a_dilated_band_has_few_runs_however_long_the_sequence() -> None:
    x = example(3, 400, 200)
    for mask in (masks.dilated(4, 3), masks.near(12, 12) & masks.every(3)):
        found = ranges_of(mask, x)
        assert found.start.shape[3] == 9
        assert torch.equal(found.dense().expand(1, 2, 3, 400), dense(mask, x))


def test_positions_out_of_order_are_still_exact() -> None:
    """A paged or permuted key axis: the predicate decides, slot by slot."""
    x = example(5, 7, 2)
    shuffled = x.replace(key_positions=torch.tensor([[6, 0, 3, 1, 5, 2, 4]]))
    for mask in (masks.causal(), masks.window(2), masks.sinks(2), masks.chunk(3), masks.near_blocks(2, 1)):
        assert torch.equal(ranges_of(mask, shuffled).dense().expand(1, 2, 5, 7), dense(mask, shuffled)), str(mask)


def test_spans_differ_by_head_and_lower_exactly() -> None:
    x = example(9, 9, 0)
    span = Span(torch.tensor([0.0, 2.7]), 1.5)
    assert torch.equal(ranges_of(span, x).dense(), dense(span, x))
    assert dense(span, x)[0, 0].sum(-1).max() == 2 and dense(span, x)[0, 1].sum(-1).max() == 5


def test_random_blocks_draw_exactly_so_many_and_differ_by_head_and_seed() -> None:
    x = example(40, 40, 0)
    drawn = dense(masks.random_blocks(4, 3, 40), x)
    assert bool((drawn.sum(-1) == 12).all())
    assert not torch.equal(drawn[0, 0], drawn[0, 1])
    assert not torch.equal(drawn, dense(masks.random_blocks(4, 3, 40, seed=1), x))
    whole = drawn.view(1, 2, 10, 4, 10, 4)
    assert torch.equal(whole.all(-1), whole.any(-1)) and torch.equal(whole.all(3), whole.any(3))


def test_sparse_transformer_rows_reach_everything_in_two_steps() -> None:
    """Child 2019, section 4: two factorised steps connect any earlier token."""
    x = example(25, 25, 0)
    causal = dense(masks.causal(), x)
    for mask in (masks.window(5) | masks.every(5), masks.chunk(5) | masks.summary(5, 1)):
        one = dense(masks.causal() & mask, x).float()
        assert bool(((one @ one > 0) >= causal).all()), str(mask)


def test_more_runs_than_a_table_holds_run_by_predicate() -> None:
    from regard.parts.defaults import mechanism_with
    from regard.run import reference, strips

    x = inputs(*(torch.randn(1, 1, 200, 4, dtype=torch.float64) for _ in range(3)))
    mechanism = mechanism_with("striped", "test", mask=masks.every(2))
    with pytest.raises(ranges.TooManyRuns, match="100 separate intervals"):
        ranges_of(mechanism.mask, x)
    wanted, _ = reference.attend(mechanism, x)
    assert torch.allclose(strips.attend(mechanism, x, strip_bytes=20_000), wanted, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: masks.window(0), r"window\(0\): a window holds at least 1 token"),
        (lambda: masks.near(-1, 0), "a band reaches at least 0 tokens"),
        (lambda: masks.sinks(0), r"sinks\(0\): at least 1 token"),
        (lambda: masks.chunk(0), "a chunk holds at least 1 token"),
        (lambda: masks.every(0), "a step is at least 1 token"),
        (lambda: masks.dilated(2, 0), "a step of at least 1"),
        (lambda: masks.summary(3, 4), "between 1 key and the whole chunk"),
        (lambda: masks.global_tokens(0), "at least 1 token"),
        (lambda: masks.near_blocks(0, 1), "blocks of at least 1 token"),
        (lambda: masks.random_blocks(4, 9, 16), "1 to 4 of them can be drawn"),
        (lambda: masks.Blocks(torch.ones(2, 2), 4), "a bool layout"),
    ],
)
def test_masks_refuse_what_means_nothing(make: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()  # type: ignore[operator]


def test_a_mask_that_reads_positions_wants_them() -> None:
    q, k = torch.randn(1, 1, 2, 4), torch.randn(1, 1, 5, 4)
    with pytest.raises(ValueError, match="2 queries on 5 keys do not say theirs"):
        ranges_of(masks.window(2), inputs(q, k))


def test_the_branches_of_a_tree_do_not_see_each_other() -> None:
    #      0
    #    1   2      two drafts of what follows token 0, the first of them with two drafts of what follows it
    #   3 4
    tree = masks.tree(torch.tensor([-1, 0, 0, 1, 1]))
    wanted = torch.tensor([[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 0, 1, 0, 0], [1, 1, 0, 1, 0], [1, 1, 0, 0, 1]]).bool()
    assert torch.equal(dense(tree, example(5, 5, 0))[0, 0], wanted)
    chain = masks.tree(torch.arange(5) - 1)
    assert torch.equal(dense(chain, example(5, 5, 0)), dense(masks.causal(), example(5, 5, 0)))


@pytest.mark.parametrize(
    ("parents", "said"),
    [
        (torch.tensor([-1, 1]), "token 1 has parent 1"),
        (torch.tensor([-2]), "token 0 has parent -2"),
        (torch.tensor([0.0]), "parents are integers"),
        (torch.tensor([[-1]]), "parents are integers"),
    ],
)
def test_a_tree_of_other_parents_is_refused(parents: torch.Tensor, said: str) -> None:
    with pytest.raises(UserError, match=said):
        masks.tree(parents)
