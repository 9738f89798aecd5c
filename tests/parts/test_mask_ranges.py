"""What a mask states as ranges is what its predicate says, wherever the positions lie."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from regard.inputs import Inputs, inputs
from regard.lower import encode_mask, ranges_of, visible
from regard.mechanism import Mask
from regard.parts import masks
from regard.parts.defaults import mechanism_with
from regard.parts.masks import And, Band, Blocks, Full, Not, Or

DOCUMENTS = torch.tensor([[0, 0, 0, 1, 1, 2, 2, 2, 2, 3] + [4] * 30])
PARENTS = torch.tensor([-1, 0, 0, 1, 1, 2, 5, 5, -1, 8, *range(9, 39)])
LAYOUT = torch.tensor([[[True, False, True], [False, True, False], [True, True, True]]])

SIMPLE: list[Mask] = [
    masks.full(),
    masks.causal(),
    masks.window(1),
    masks.window(3),
    masks.near(2, 0),
    masks.near(0, 2),
    masks.near(1, 3),
    Band(None, 2),
    Band(2, None),
    Band(None, None),
    masks.sinks(2),
    masks.global_keys(3),
    masks.prefix(4),
    masks.chunk(1),
    masks.chunk(3),
    masks.global_tokens(2),
    masks.every(2),
    masks.summary(3, 1),
    masks.near_blocks(2, 1),
    masks.random_blocks(2, 2, 12),
    masks.heads(1, 2),
    masks.documents(DOCUMENTS),
    masks.tree(PARENTS),
    Blocks(LAYOUT, 4),
]
COMBINED: list[Mask] = [
    masks.causal() & masks.window(3) | masks.sinks(2),
    masks.causal() & ~masks.window(2),
    ~masks.causal(),
    masks.dilated(6, 2),
    (masks.chunk(3) | masks.sinks(1)) & masks.causal(),
    masks.heads(0, 1) & masks.causal() | masks.heads(1, 2) & masks.window(2),
    ~(masks.causal() | masks.global_keys(2)),
]
EVERY = SIMPLE + COMBINED


def at(query: Tensor, key: Tensor, key_valid: Tensor | None = None) -> Inputs:
    """Inputs of two heads whose tokens lie at these positions."""
    q, k = torch.zeros(query.shape[0], 2, query.shape[1], 4), torch.zeros(key.shape[0], 2, key.shape[1], 4)
    return inputs(q, k, query_positions=query, key_positions=key, key_valid=key_valid)


def said(mask: Mask, x: Inputs) -> Tensor:
    """The predicate itself, cell by cell."""
    where = x.tile(slice(None), slice(None)).where
    return mask(where.batch, where.head, where.query, where.key).expand(
        x.q.shape[0], x.q.shape[1], x.q.shape[2], x.k.shape[2]
    )


@st.composite
def placed(draw: st.DrawFn) -> Inputs:
    """Queries and keys of a plain sequence, a later chunk of one, a left-padded batch, or scattered and unsorted."""
    keys = draw(st.integers(1, 9))
    slots = torch.arange(keys)
    match draw(st.sampled_from(["plain", "offset", "left padding", "scattered", "unsorted"])):
        case "plain":
            return at(slots[None], slots[None])
        case "offset":
            first = draw(st.integers(0, keys - 1))
            return at(slots[None, first:], slots[None])
        case "left padding":
            padded = draw(st.integers(0, keys))
            positions = torch.stack([slots, (slots - padded).clamp(min=-1)])
            return at(positions, positions)
        case "scattered":
            key = torch.tensor(sorted(draw(st.sets(st.integers(0, 30), min_size=keys, max_size=keys))))
            query = torch.tensor(draw(st.lists(st.integers(0, 30), min_size=1, max_size=5)))
            return at(query[None], key[None])
        case _:
            key = torch.tensor(draw(st.permutations(range(keys))))
            return at(slots[None], key[None])
    raise AssertionError


@pytest.mark.parametrize("mask", EVERY, ids=str)
@given(x=placed())
def test_the_ranges_of_a_mask_are_what_its_predicate_says(mask: Mask, x: Inputs) -> None:
    expected = said(mask, x)
    assert torch.equal(ranges_of(mask, x).dense().expand_as(expected), expected)
    assert torch.equal(encode_mask(mask, x).dense().expand_as(expected), expected)


@pytest.mark.parametrize("mask", EVERY, ids=str)
def test_padding_is_never_visible(mask: Mask) -> None:
    slots = torch.arange(7)
    positions = torch.stack([slots, (slots - 3).clamp(min=-1)])
    valid = torch.stack([slots < 5, slots >= 3])
    x = at(positions, positions, valid)
    seen = visible(mechanism_with("one", "", mask=mask), x).dense()
    assert torch.equal(seen.expand(2, 2, 7, 7), said(mask, x) & valid[:, None, None])


def test_the_conventions_of_the_most_used_masks() -> None:
    """Row 5 of 8 sees these keys."""
    x = at(torch.arange(8)[None], torch.arange(8)[None])
    for mask, keys in (
        (masks.causal(), [0, 1, 2, 3, 4, 5]),
        (masks.window(3), [3, 4, 5]),
        (masks.near(2, 1), [3, 4, 5, 6]),
        (masks.sinks(2), [0, 1]),
        (masks.sinks(8), [0, 1, 2, 3, 4, 5]),
        (masks.global_keys(8), list(range(8))),
        (masks.prefix(7), [0, 1, 2, 3, 4, 5, 6]),
        (masks.chunk(4), [4, 5, 6, 7]),
        (masks.causal() & masks.window(2) | masks.sinks(1), [0, 4, 5]),
        (masks.dilated(3, 2), [1, 3, 5, 7]),
        (masks.documents(torch.tensor([[0, 0, 0, 0, 1, 1, 1, 2]])), [4, 5, 6]),
    ):
        assert said(mask, x)[0, 0, 5].nonzero().flatten().tolist() == keys, str(mask)


def test_masks_name_themselves_in_the_text_form() -> None:
    for mask, text in (
        (masks.full(), "full"),
        (masks.causal(), "causal"),
        (masks.window(4), "window(4)"),
        (masks.near(2, 3), "near(2, 3)"),
        (masks.sinks(4), "sinks(4)"),
        (masks.global_keys(4), "globals(4)"),
        (masks.prefix(4), "prefix(4)"),
        (masks.chunk(4), "chunk(4)"),
        (masks.documents(DOCUMENTS), "documents"),
        (masks.causal() & masks.window(1024) | masks.sinks(4), "causal & window(1024) | sinks(4)"),
        (masks.causal() & (masks.window(8) | masks.sinks(4)), "causal & (window(8) | sinks(4))"),
        (~masks.causal(), "~causal"),
        (~(masks.causal() & masks.chunk(2)), "~(causal & chunk(2))"),
        (~masks.causal() & masks.chunk(2), "~causal & chunk(2)"),
    ):
        assert str(mask) == text


@given(st.data())
def test_combining_masks_is_combining_what_they_say(data: st.DataObject) -> None:
    a, b = (data.draw(st.sampled_from(SIMPLE)) for _ in range(2))
    x = data.draw(placed())
    for mask, expected in (
        (And(a, b), said(a, x) & said(b, x)),
        (Or(a, b), said(a, x) | said(b, x)),
        (Not(And(a, b)), ~(said(a, x) & said(b, x))),
    ):
        assert torch.equal(ranges_of(mask, x).dense().expand_as(expected), expected)


@pytest.mark.parametrize(
    "make,words",
    [
        (lambda: masks.window(0), "window holds at least 1 token; use causal"),
        (lambda: masks.near(-1, 0), "at least 0 tokens"),
        (lambda: masks.near(0, -1), "at least 0 tokens"),
        (lambda: masks.sinks(0), r"sinks\(0\): at least 1"),
        (lambda: masks.global_keys(0), r"globals\(0\): at least 1"),
        (lambda: masks.chunk(0), "chunk holds at least 1"),
    ],
)
def test_sizes_that_make_no_mask_are_refused(make: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()  # type: ignore[operator]


def test_masks_say_whether_they_read_the_positions_of_queries() -> None:
    x = inputs(torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 5, 4))
    free: list[Mask] = [Full(), masks.global_keys(2), Full() & masks.global_keys(2), ~Full(), Full() | Full()]
    for mask in free:
        assert not mask.reads_positions, str(mask)  # type: ignore[attr-defined]
        assert ranges_of(mask, x).num_queries == 2
    for mask in (masks.causal(), masks.sinks(2), Full() & masks.causal(), ~masks.chunk(2), masks.every(2)):
        with pytest.raises(ValueError, match=r"reads positions, and 2 queries on 5 keys .* give query_positions"):
            ranges_of(mask, x)
