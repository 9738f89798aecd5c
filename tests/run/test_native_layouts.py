"""Documents side by side, and pages: the same numbers as the dense layout, in any company."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from regard import core
from regard.ranges import Ranges
from regard.run import layout as layouts
from regard.run import native
from regard.run.layout import Paged, Ragged, new_pages, paged_decode, ragged, write_pages
from regard.run.native import NATIVE

pytestmark = pytest.mark.skipif(not native.available(), reason=str(native.why_unavailable()))


# ---- documents ------------------------------------------------------------------------------------------------------


def documents() -> tuple[Tensor, Tensor, Tensor, Ragged]:
    """Documents of 5, 0, 65, 1 and 300 queries, most of them with some earlier keys."""
    torch.manual_seed(0)
    queries, keys = torch.tensor([5, 0, 65, 1, 300]), torch.tensor([9, 3, 65, 4, 301])
    cu = [torch.cat([torch.zeros(1, dtype=torch.int32), n.cumsum(0).int()]) for n in (queries, keys)]
    q = torch.randn(int(queries.sum()), 6, 32)
    k, v = torch.randn(int(keys.sum()), 2, 32), torch.randn(int(keys.sum()), 2, 24)
    return q, k, v, Ragged(*cu)


def alone(q: Tensor, k: Tensor, v: Tensor, layout: Ragged, seen: Ranges, s: int) -> core.Plan:
    """Document s as a dense plan of its own."""
    a, b, c, d = (int(x) for x in (*layout.cu_query[s : s + 2], *layout.cu_key[s : s + 2]))
    at = layout.positions()[0][None, a:b], layout.positions()[1][None, c:d]
    own = Ranges(seen.start[:, :, a:b], seen.stop[:, :, a:b], d - c)
    parts = (q[a:b], k[c:d], v[c:d])
    terms = (core.Dot(32**-0.5), core.Slope(torch.ones(6)))
    return core.Plan(*(x.transpose(0, 1)[None] for x in parts), *at, terms, own, core.Softmax())


@pytest.mark.parametrize("kind", ["causal", "window", "full"])
def test_a_document_has_the_bits_that_it_has_alone(kind: str) -> None:
    q, k, v, layout = documents()
    seen = {"causal": layout.causal(), "window": layout.causal(16, 2), "full": layout.full()}[kind]
    feature = torch.rand(1, k.shape[0])
    common = (core.RowEntropy(), core.TopK(3), core.ColumnMass(), core.DistanceHistogram(6))
    terms = (core.Dot(32**-0.5), core.Slope(torch.ones(6)))
    packed = ragged(q, k, v, layout, terms=terms, ranges=seen, watch=core.Watch((*common, core.RowSum(feature))))
    entropy, (weights, keys), mass, bins, sums = packed.statistics
    assert packed.out is not None and packed.out.shape == (371, 6, 24)
    for s in range(layout.num_documents):
        rows, columns = slice(*layout.cu_query[s : s + 2]), slice(*layout.cu_key[s : s + 2])
        plan = alone(q, k, v, layout, seen, s)
        found = NATIVE.run(plan, core.Watch((*common, core.RowSum(feature[:, columns]))))
        assert found.out is not None
        assert torch.equal(found.out[0].transpose(0, 1), packed.out[rows])
        assert torch.equal(found.statistics[0][0], entropy[:, rows])
        assert torch.equal(found.statistics[4][0], sums[:, rows])
        assert torch.equal(found.statistics[1][0][0], weights[:, rows])
        assert torch.equal(found.statistics[1][1][0], keys[:, rows])
        assert torch.equal(found.statistics[2][0], mass[:, columns])
        assert torch.equal(found.statistics[3][0], bins[s])


def test_documents_refuse_what_has_no_packed_form() -> None:
    q, k, v, layout = documents()
    with pytest.raises(ValueError, match="a map of several documents has no one shape"):
        ragged(q, k, v, layout, watch=core.Watch((core.Pool(1, 1),)))
    with pytest.raises(ValueError, match="the layout holds 371 queries"):
        ragged(q[1:], k, v, layout)
    with pytest.raises(ValueError, match="cu_key must be ascending"):
        Ragged(torch.tensor([0, 1]), torch.tensor([0, -1]))


# ---- pages ----------------------------------------------------------------------------------------------------------


def paged(lengths: list[int], groups: int, width: int, value_width: int, page_size: int) -> tuple[Tensor, ...]:
    """Sequences scattered over pages that are full of NaN elsewhere: (keys per sequence …) packed, pages, table."""
    torch.manual_seed(1)
    counts = [-(-n // page_size) for n in lengths]
    order = torch.randperm(sum(counts) + 5).int()
    key_pages, value_pages = new_pages(len(order), groups, width, value_width, page_size)
    key_pages.fill_(torch.nan)
    value_pages.fill_(torch.nan)
    table = torch.full((len(lengths), max(counts) + 1), 1 << 30, dtype=torch.int32)
    k, v = torch.randn(sum(lengths), groups, width), torch.randn(sum(lengths), groups, value_width)
    used = token = 0
    for s, (length, count) in enumerate(zip(lengths, counts, strict=True)):
        table[s, :count] = order[used : used + count]
        place = torch.arange(length)
        slots = table[s][place // page_size].long() * page_size + place % page_size
        write_pages(k[token : token + length], v[token : token + length], slots, key_pages, value_pages)
        used, token = used + count, token + length
    return k, v, key_pages, value_pages, table


@pytest.mark.parametrize(
    "heads,groups,width,value_width,page_size", [(9, 3, 64, 64, 16), (10, 2, 17, 40, 32), (4, 4, 8, 3, 256)]
)
@pytest.mark.parametrize("windowed", [False, True])
def test_decoding_equals_the_dense_layout(
    heads: int, groups: int, width: int, value_width: int, page_size: int, windowed: bool
) -> None:
    lengths = [1, 15, 16, 17, 255, 256, 257, 2048, 2049, 5000]
    k, v, key_pages, value_pages, table = paged(lengths, groups, width, value_width, page_size)
    q, sink = torch.randn(len(lengths), heads, width), torch.randn(heads)
    sizes = torch.tensor(lengths, dtype=torch.int32)
    starts = (sizes - 100).clamp(min=0) if windowed else None
    layout = Paged(table, sizes, page_size)
    found = paged_decode(q, key_pages, value_pages, layout, starts=starts, sink=sink)
    assert found.out is not None and found.lse is not None
    token = 0
    for s, length in enumerate(lengths):
        own = slice(token + (int(starts[s]) if starts is not None else 0), token + length)
        keys, values = (x[own].double().repeat_interleave(heads // groups, 1) for x in (k, v))
        scores = torch.einsum("hd,thd->ht", q[s].double(), keys) * width**-0.5
        scores = torch.cat([scores, sink[:, None].double()], 1)
        expected = torch.einsum("ht,thd->hd", scores.softmax(1)[:, :-1], values)
        assert (found.out[s] - expected).abs().max() <= 3e-6, f"sequence {s} is off"
        assert (found.lse[s] - scores.logsumexp(1)).abs().max() <= 4e-6
        token += length


def test_a_sequence_has_the_same_bits_in_any_batch_and_any_pages() -> None:
    lengths = [700, 33, 4100]
    _, _, key_pages, value_pages, table = paged(lengths, 3, 64, 64, 16)
    q, sizes = torch.randn(3, 9, 64), torch.tensor(lengths, dtype=torch.int32)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        together = paged_decode(q, key_pages, value_pages, Paged(table, sizes, 16)).out
        torch.set_num_threads(1)
        moved = torch.randperm(key_pages.shape[0])
        places = moved.argsort().int()
        again = table.where(table < len(moved), 0).long()
        for s in range(3):
            own = Paged(places[again[s : s + 1]], sizes[s : s + 1], 16)
            single = paged_decode(q[s : s + 1], key_pages[moved], value_pages[moved], own).out
            assert together is not None and single is not None and torch.equal(single[0], together[s])
    finally:
        torch.set_num_threads(before)


def test_an_empty_sequence_gives_zeros() -> None:
    key_pages, value_pages = new_pages(1, 1, 8, 8)
    key_pages.fill_(torch.nan)
    sizes = torch.zeros(1, dtype=torch.int32)
    found = paged_decode(torch.randn(1, 2, 8), key_pages, value_pages, Paged(torch.zeros(1, 1).int(), sizes, 16))
    assert found.out is not None and (found.out == 0).all() and (found.row_max == -torch.inf).all()


def test_pages_beyond_two_gigabytes() -> None:
    """32,768 pages of 16 tokens, 2 heads of 64: offsets pass 2^31 bytes in keys and in values."""
    key_pages, value_pages = new_pages(32768 + 16, 1, 1024, 64, 32)
    assert key_pages.numel() * 4 > 1 << 32
    last = torch.tensor([[key_pages.shape[0] - 1]], dtype=torch.int32)
    k, v = torch.randn(32, 1, 1024), torch.randn(32, 1, 64)
    write_pages(k, v, last[0].long() * 32 + torch.arange(32), key_pages, value_pages)
    q = torch.randn(1, 1, 1024)
    found = paged_decode(q, key_pages, value_pages, Paged(last, torch.tensor([32]).int(), 32)).out
    expected = (q[0].double() @ k[:, 0].double().T / 32).softmax(-1) @ v[:, 0].double()
    assert found is not None and (found[0] - expected).abs().max() < 1e-5


def test_pages_refuse_what_does_not_fit() -> None:
    key_pages, value_pages = new_pages(2, 1, 8, 8)
    with pytest.raises(ValueError, match="pages hold"):
        new_pages(2, 1, 8, 8, 12)
    with pytest.raises(ValueError, match="slots must lie in 0 … 31"):
        write_pages(torch.zeros(1, 1, 8), torch.zeros(1, 1, 8), torch.tensor([32]), key_pages, value_pages)
    with pytest.raises(ValueError, match="names pages 5 … 5 of 2"):
        layout = Paged(torch.tensor([[5]]).int(), torch.tensor([3]).int(), 16)
        paged_decode(torch.zeros(1, 1, 8), key_pages, value_pages, layout)
    with pytest.raises(ValueError, match="does not fit its pages"):
        Paged(torch.tensor([[5]]).int(), torch.tensor([30]).int(), 16)
    assert layouts.PAGE_SIZES[0] == 16
