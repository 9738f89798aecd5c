"""Documents side by side, and pages: the same numbers as the dense layout, in any company."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from regard import core
from regard.core.layout import Paged, Ragged
from regard.core.ranges import Ranges
from regard.inputs import packed_inputs
from regard.run import native
from regard.run.native import NATIVE
from regard.run.pages import new_pages, write_pages
from tests.run.plans import beside_pages, packed_plan, paged, paged_decode, ragged

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
    at = layout.query_positions[:, a:b], layout.key_positions[:, c:d]
    own = Ranges(seen.start[:, :, a:b], seen.stop[:, :, a:b], d - c)
    parts = (q[a:b], k[c:d], v[c:d])
    terms = (core.Dot(32**-0.5), core.Slope(torch.ones(6)))
    return core.Plan(*(x.transpose(0, 1)[None] for x in parts), *at, terms, own, core.Softmax())


@pytest.mark.parametrize("kind", ["causal", "window", "full"])
def test_a_document_has_the_bits_that_it_has_alone(kind: str) -> None:
    q, k, v, layout = documents()
    seen = {"causal": layout.causal(), "window": layout.causal(16, 2), "full": layout.every_key}[kind]
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


def scattered(
    lengths: list[int],
    groups: int,
    width: int,
    value_width: int,
    page_size: int,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, ...]:
    """Sequences scattered over pages that are full of NaN elsewhere: (keys per sequence …) packed, pages, table."""
    torch.manual_seed(1)
    counts = [-(-n // page_size) for n in lengths]
    order = torch.randperm(sum(counts) + 5).int()
    key_pages, value_pages = new_pages(len(order), groups, width, value_width, page_size, dtype)
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


HALVES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("page_size", [16, 128])
def test_pages_give_the_bits_of_documents_side_by_side(dtype: torch.dtype, page_size: int) -> None:
    """Prefill in chunks and decoding in one call, with every kind of statistic, biases, a sink and a window."""
    lengths, new = [700, 1, 33, 0, 130, 257], [700, 1, 1, 0, 64, 100]
    k, v, key_pages, value_pages, table = scattered(lengths, 2, 40, 24, page_size, dtype)
    cu_query = torch.tensor([0, *torch.tensor(new).cumsum(0)], dtype=torch.int32)
    layout = Paged(table, torch.tensor(lengths, dtype=torch.int32), page_size, cu_query)
    documents = Ragged(layout.cu_query, layout.cu_key)
    q = torch.randn(sum(new), 6, 40).to(dtype)
    rounded = [x.to(dtype) for x in (k, v)]
    table_bias = torch.randn(1, 6, sum(new), 700)
    terms = (core.Dot(0.2), core.Softcap(5.0), core.KeyBias(torch.randn(1, 1, sum(lengths))), core.Table(table_bias))
    label = torch.arange(sum(new))[None] % 5, torch.arange(sum(lengths))[None] % 5
    watched = (core.RowEntropy(), core.RowMatch(*label), core.TopK(3), core.ColumnMass(), core.DistanceHistogram(6))
    settings = {
        "terms": (*terms, core.Slope(torch.rand(6))),
        "ranges": documents.causal(200, 2),
        "softmax": core.Softmax(torch.randn(6)),
        "watch": core.Watch(watched),
    }
    expected = ragged(q, *rounded, documents, **settings)  # type: ignore[arg-type]
    found = paged(q, key_pages, value_pages, layout, **settings)  # type: ignore[arg-type]
    assert found.out is not None and expected.out is not None and torch.equal(found.out, expected.out)
    for one, other in zip(found.statistics, expected.statistics, strict=True):
        pairs = zip(one, other, strict=True) if isinstance(one, tuple) else [(one, other)]
        assert all(torch.equal(a, b) for a, b in pairs)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", HALVES)
def test_decoding_is_the_general_walk_for_one_query_each(dtype: torch.dtype) -> None:
    lengths = [1, 100, 2500]
    _, _, key_pages, value_pages, table = scattered(lengths, 3, 48, 20, 32, dtype)
    layout = Paged(table, torch.tensor(lengths, dtype=torch.int32), 32)
    q, sink = torch.randn(3, 9, 48).to(dtype), torch.randn(9)
    fast = paged_decode(q, key_pages, value_pages, layout, sink=sink)
    plan = packed_plan(packed_inputs(q, key_pages, value_pages, layout), softmax=core.Softmax(sink))
    general = NATIVE.run(beside_pages(plan))
    assert fast.out is not None and general.out is not None and fast.out.dtype == dtype
    out = general.out[0].transpose(0, 1)
    allowed = {torch.float32: 2e-6, torch.bfloat16: 2.0**-7, torch.float16: 2.0**-10}[dtype]
    assert (fast.out - out).abs().max() <= allowed
    assert fast.lse is not None and general.lse is not None
    assert (fast.lse - general.lse[0].T).abs().max() <= 4e-6


def test_one_sequence_may_show_its_map() -> None:
    _, _, key_pages, value_pages, table = scattered([90], 2, 16, 16, 16)
    layout = Paged(table, torch.tensor([90], dtype=torch.int32), 16, torch.tensor([0, 40]))
    q, watch = torch.randn(40, 4, 16), core.Watch((core.Pool(0, 0, 50), core.ColumnMass()))
    (_, cells), mass = paged(q, key_pages, value_pages, layout, watch=watch, output=False).statistics
    assert isinstance(mass, Tensor) and cells.shape == (4, 40, 90)
    assert (cells.double().sum(1) - mass).abs().max() < 1e-5
    assert ((cells > 0).sum(-1) == torch.arange(51, 91)).all()


@pytest.mark.parametrize(
    "heads,groups,width,value_width,page_size", [(9, 3, 64, 64, 16), (10, 2, 17, 40, 32), (4, 4, 8, 3, 256)]
)
@pytest.mark.parametrize("windowed", [False, True])
def test_decoding_equals_the_dense_layout(
    heads: int, groups: int, width: int, value_width: int, page_size: int, windowed: bool
) -> None:
    lengths = [1, 15, 16, 17, 255, 256, 257, 2048, 2049, 5000]
    k, v, key_pages, value_pages, table = scattered(lengths, groups, width, value_width, page_size)
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
    _, _, key_pages, value_pages, table = scattered(lengths, 3, 64, 64, 16)
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
    with pytest.raises(ValueError, match="a page holds"):
        new_pages(2, 1, 8, 8, 12)
    with pytest.raises(ValueError, match="slots must lie in 0 … 31"):
        write_pages(torch.zeros(1, 1, 8), torch.zeros(1, 1, 8), torch.tensor([32]), key_pages, value_pages)
    with pytest.raises(ValueError, match="names page 5 of 2 for sequence 0"):
        layout = Paged(torch.tensor([[5]]).int(), torch.tensor([3]).int(), 16)
        paged_decode(torch.zeros(1, 1, 8), key_pages, value_pages, layout)
    layout = Paged(torch.tensor([[0]]).int(), torch.tensor([3]).int(), 16)
    three = Paged(torch.tensor([[0]]).int(), torch.tensor([3]).int(), 16, torch.tensor([0, 3]))
    with pytest.raises(ValueError, match="q must be"):
        paged(torch.zeros(2, 1, 8), key_pages, value_pages, three)
    with pytest.raises(ValueError, match="must agree"):
        paged(torch.zeros(1, 1, 8), key_pages.half(), value_pages, layout)
    with pytest.raises(ValueError, match="does not fit its pages"):
        Paged(torch.tensor([[5]]).int(), torch.tensor([30]).int(), 16)
