"""Pages: owned once or shared, found again by content, given back behind a window."""

from __future__ import annotations

import pytest

from regard.serve.pool import GONE, Table
from tests.serve.simulation import pool_of


def filled(pool, tokens: list[int]) -> Table:
    table = pool.table()
    reused = pool.adopt(table, tokens, len(tokens) - 1)
    assert pool.reserve(table, reused, len(tokens)) == []
    pool.advance(table, tokens, len(tokens))
    return table


def test_equal_beginnings_share_pages_and_the_last_token_is_always_computed() -> None:
    pool = pool_of(16, page_size=4)
    first = filled(pool, list(range(10)))
    second = pool.table()
    assert pool.adopt(second, [*range(8), 99, 98, 97], 10) == 8
    assert second.pages == [first.pages[0][:2]]
    third = pool.table()
    assert pool.adopt(third, list(range(8)), 7) == 4
    pool.check([first, second, third])


def test_a_page_is_shared_only_after_the_same_beginning() -> None:
    pool = pool_of(16, page_size=4)
    filled(pool, [1, 2, 3, 4, 5, 6, 7, 8, 9])
    other = pool.table()
    assert pool.adopt(other, [0, 2, 3, 4, 5, 6, 7, 8, 9], 8) == 0


def test_another_salt_shares_nothing() -> None:
    pool = pool_of(16, page_size=4)
    filled(pool, list(range(9)))
    assert pool.adopt(pool.table(b"somebody else"), list(range(9)), 8) == 0


def test_a_collision_of_digests_is_told_apart_by_the_tokens() -> None:
    pool = pool_of(16, page_size=4)
    first = filled(pool, list(range(9)))
    liar = pool.table()
    liar.digests = list(first.digests)
    assert pool.adopt(liar, [9, 9, 9, 9, 9], 4) == 0


def test_the_least_recently_used_goes_first_and_beginnings_last() -> None:
    pool = pool_of(4, page_size=4)
    pool.release(filled(pool, list(range(12))))
    assert pool.groups[0].available == 4
    table = pool.table()
    assert pool.reserve(table, 0, 8) == []  # the free page, and the end of the idle sequence
    again = pool.table()
    assert pool.adopt(again, list(range(12)), 11) == 8
    pool.check([table, again])


def test_reserving_is_all_or_nothing_over_groups() -> None:
    pool = pool_of(8, 2, page_size=4)
    table = pool.table()
    assert pool.reserve(table, 0, 12) is None
    assert table.pages == [[], []]
    assert pool.reserve(table, 0, 8) == []
    other = pool.fork(table)
    assert pool.reserve(other, 7, 8) is None  # the first group could copy, the second could not
    assert other.pages == table.pages
    pool.check([table, other])


def test_a_shared_page_is_copied_before_it_is_written() -> None:
    pool = pool_of(8, page_size=4)
    table = pool.table()
    pool.reserve(table, 0, 6)
    other = pool.fork(table)
    (copy,) = pool.reserve(other, 6, 7) or []
    assert (copy.source, copy.target) == (table.pages[0][1], other.pages[0][1])
    assert pool.reserve(table, 6, 7) == []
    pool.check([table, other])


def test_layers_with_a_window_give_back_what_they_cannot_see() -> None:
    pool = pool_of(16, (16, 6), page_size=4)
    tokens = list(range(20))
    table = filled(pool, tokens)
    # The next query stands at 20 and sees 15 … 20: pages 0 to 2 are out of sight.
    assert [page == GONE for page in table.pages[1]] == [True, True, True, False, False]
    assert GONE not in table.pages[0]
    again = pool.table()
    assert pool.adopt(again, [*tokens, 1, 2], 21) == 20
    pool.check([table, again])


def test_a_prefix_needs_the_window_before_its_end() -> None:
    pool = pool_of(16, (4, 6), page_size=4)
    tokens = list(range(20))
    pool.release(filled(pool, tokens[:12]))
    pool.release(filled(pool, [*tokens[:12], 90, 91, 92, 93, 94, 95, 96, 97]))
    table = pool.table()
    reused = pool.adopt(table, [*tokens[:12], 5, 5], 13)
    assert reused % 4 == 0
    group = pool.groups[1]
    assert all(page != GONE for page in table.pages[1][group.first_seen(reused, 4) :])
    pool.check([table])


def test_check_sees_a_leak() -> None:
    pool = pool_of(4, page_size=4)
    table = pool.table()
    pool.reserve(table, 0, 4)
    with pytest.raises(AssertionError, match="owned 0 times"):
        pool.check([])
