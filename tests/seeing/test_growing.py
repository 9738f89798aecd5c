"""Growing tensors hold what was written where it was written, and appending does not copy what is there."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from regard.growing import Growing

LENGTH, WIDTH = 12, 5


@settings(max_examples=60)
@given(st.data())
def test_any_regions_joined_in_any_order_equal_a_dense_tensor(data: st.DataObject) -> None:
    how = data.draw(st.sampled_from(["add", "max", "set"]))
    fill = data.draw(st.sampled_from([0.0, -1.0]))
    dense = torch.full((2, 3, LENGTH, WIDTH), fill)
    grown: Growing | None = None
    for step in range(data.draw(st.integers(1, 6))):
        rows, keys = (sorted(data.draw(st.tuples(*[st.integers(0, n)] * 2))) for n in (LENGTH, WIDTH))
        values = torch.rand(2, 3, rows[1] - rows[0], keys[1] - keys[0], generator=torch.Generator().manual_seed(step))
        before = values.clone()
        part = Growing(values, (rows[0], keys[0]), fill)
        region = dense[:, :, rows[0] : rows[1], keys[0] : keys[1]]
        first = grown is None
        region.copy_(values if first or how == "set" else region + values if how == "add" else region.maximum(values))
        grown = part if grown is None else grown.join(part, how)
        assert torch.equal(values, before)
    assert grown is not None
    assert torch.equal(grown.whole(LENGTH, WIDTH), dense)
    assert torch.equal(grown.whole(5, 2), dense[:, :, :5, :2])
    assert torch.equal(grown.live(), dense[:, :, grown.begin[0] : grown.end[0], grown.begin[1] : grown.end[1]])


def test_appended_rows_copy_linearly_many_numbers_and_take_at_most_twice_the_memory() -> None:
    grown, moved, address = Growing(torch.zeros(1, 2, 1), (0,)), 0, 0
    for row in range(1, 5000):
        grown.join(Growing(torch.full((1, 2, 1), float(row)), (row,)), "add")
        if grown.live().data_ptr() != address:
            address, moved = grown.live().data_ptr(), moved + row
    assert torch.equal(grown.whole(5000)[0, 0], torch.arange(5000.0))
    assert moved <= 2 * 5000
    assert grown.live().untyped_storage().nbytes() <= 2 * 5000 * 2 * 4


def test_what_was_handed_in_or_handed_out_is_never_changed() -> None:
    given = torch.ones(1, 1, 3)
    grown = Growing(given, (0,))
    finished = grown.whole(3)
    grown.join(Growing(given, (0,)), "add")
    assert given.eq(1).all() and finished.eq(1).all() and grown.live().eq(2).all()
