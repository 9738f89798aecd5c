"""Decoding from pages by the Triton kernels: the same numbers as the dense layout, in any company."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from regard.core.layout import Paged
from regard.run.triton import decode, why_unavailable

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
pytestmark = pytest.mark.skipif(why_unavailable(DEVICE) is not None, reason=str(why_unavailable(DEVICE)))
LENGTHS = [1, 15, 16, 17, 511, 512, 513, 1100, 0]


def paged(
    lengths: list[int], groups: int, width: int, value_width: int, page_size: int, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, ...]:
    """Sequences scattered over pages that are full of NaN elsewhere: keys and values packed, pages, table."""
    torch.manual_seed(1)
    counts = [-(-n // page_size) for n in lengths]
    order = torch.randperm(sum(counts) + 5).int()
    key_pages = torch.full((len(order), groups, width, page_size), torch.nan, dtype=dtype)
    value_pages = torch.full((len(order), groups, page_size, value_width), torch.nan, dtype=dtype)
    table = torch.full((len(lengths), max(counts) + 1), 1 << 30, dtype=torch.int32)
    k, v = (torch.randn(sum(lengths), groups, w).to(dtype) for w in (width, value_width))
    used = token = 0
    for s, (length, count) in enumerate(zip(lengths, counts, strict=True)):
        table[s, :count] = order[used : used + count]
        place = torch.arange(length)
        page, slot = table[s][place // page_size].long(), place % page_size
        key_pages[page, :, :, slot] = k[token : token + length]
        value_pages[page, :, slot] = v[token : token + length]
        used, token = used + count, token + length
    return k, v, key_pages.to(DEVICE), value_pages.to(DEVICE), table.to(DEVICE)


@pytest.mark.parametrize(
    "heads,groups,width,value_width,page_size,dtype",
    [
        (9, 3, 64, 64, 16, torch.float32),
        (10, 2, 17, 40, 32, torch.float32),
        (4, 4, 8, 3, 256, torch.float32),
        (8, 1, 32, 32, 64, torch.bfloat16),
    ],
)
@pytest.mark.parametrize("windowed", [False, True])
def test_decoding_equals_the_dense_layout(
    heads: int, groups: int, width: int, value_width: int, page_size: int, dtype: torch.dtype, windowed: bool
) -> None:
    k, v, key_pages, value_pages, table = paged(LENGTHS, groups, width, value_width, page_size, dtype)
    q, sink = torch.randn(len(LENGTHS), heads, width).to(dtype), torch.randn(heads)
    sizes = torch.tensor(LENGTHS, dtype=torch.int32)
    starts = (sizes - 100).clamp(min=0) if windowed else None
    found = decode.paged_decode(
        q.to(DEVICE),
        key_pages,
        value_pages,
        Paged(table, sizes.to(DEVICE), page_size),
        starts=None if starts is None else starts.to(DEVICE),
        sink=sink.to(DEVICE),
    )
    assert found.out is not None and found.lse is not None
    close = 3e-6 if dtype == torch.float32 else 0.05
    token = 0
    for s, length in enumerate(LENGTHS):
        own = slice(token + (int(starts[s]) if starts is not None else 0), token + length)
        token += length
        if length == 0:
            assert (found.out[s] == 0).all() and (found.lse[s] == -torch.inf).all()
            continue
        keys, values = (x[own].double().repeat_interleave(heads // groups, 1) for x in (k, v))
        scores = torch.einsum("hd,thd->ht", q[s].double(), keys) * width**-0.5
        scores = torch.cat([scores, sink[:, None].double()], 1)
        expected = torch.einsum("ht,thd->hd", scores.softmax(1)[:, :-1], values)
        assert (found.out[s].cpu() - expected).abs().max() <= close, f"sequence {s} is off"
        assert (found.lse[s].cpu() - scores.logsumexp(1)).abs().max() <= 4e-6


def test_a_sequence_has_the_same_bits_in_any_batch_and_any_pages() -> None:
    lengths = [700, 33, 1040]
    _, _, key_pages, value_pages, table = paged(lengths, 2, 32, 32, 16)
    q, sizes = torch.randn(3, 4, 32).to(DEVICE), torch.tensor(lengths, dtype=torch.int32, device=DEVICE)
    together = decode.paged_decode(q, key_pages, value_pages, Paged(table, sizes, 16)).out
    moved = torch.randperm(key_pages.shape[0])
    places = moved.argsort().int().to(DEVICE)
    own = places[table.where(table < len(moved), 0).long()]
    for s in range(3):
        one = slice(s, s + 1)
        layout = Paged(own[one, :70], sizes[one], 16)
        single = decode.paged_decode(q[one], key_pages[moved], value_pages[moved], layout).out
        assert together is not None and single is not None and torch.equal(single[0], together[s])


def test_pages_beyond_two_gigabytes() -> None:
    """32,784 pages of 32 tokens of 1 head of 512: offsets of keys pass 2^31 bytes."""
    key_pages = torch.empty((32784 + 16, 1, 512, 32), device=DEVICE)
    value_pages = torch.empty((32784 + 16, 1, 32, 64), device=DEVICE)
    assert key_pages.numel() * 4 > 1 << 31
    last = torch.tensor([[key_pages.shape[0] - 1]], dtype=torch.int32, device=DEVICE)
    k, v, q = torch.randn(32, 512), torch.randn(32, 64), torch.randn(1, 1, 512)
    key_pages[-1, 0], value_pages[-1, 0] = k.T.to(DEVICE), v.to(DEVICE)
    length = torch.tensor([32], dtype=torch.int32, device=DEVICE)
    found = decode.paged_decode(q.to(DEVICE), key_pages, value_pages, Paged(last, length, 32)).out
    expected = (q[0].double() @ k.double().T * 512**-0.5).softmax(-1) @ v.double()
    assert found is not None and (found[0].cpu() - expected).abs().max() < 1e-5


def test_heads_too_wide_are_refused() -> None:
    pages = torch.zeros(1, 1, 600, 16, device=DEVICE), torch.zeros(1, 1, 16, 8, device=DEVICE)
    none = torch.zeros(1, dtype=torch.int32, device=DEVICE)
    with pytest.raises(ValueError, match="the Triton kernels cannot decode: heads are 600 wide"):
        decode.paged_decode(torch.zeros(1, 1, 600, device=DEVICE), *pages, Paged(none[None], none, 16))
