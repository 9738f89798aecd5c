"""Cases of other layouts: documents side by side, and one decoding step on pages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa

from regard.bench.cases import gathered
from regard.bench.cases.case import Case, Contestant, off
from regard.run.layout import Paged, Ragged
from regard.run.output import Output
from regard.run.paged import new_pages, paged_decode, write_pages
from regard.run.ragged import ragged

WIDTH = 64
CACHE_FLOATS = 64 << 20


def documents(lengths: Tensor, heads: int = 12) -> Case:
    """Documents of these lengths, packed, against SDPA on the padded batch and on one document after another."""
    count, longest = len(lengths), int(lengths.max())
    cu = torch.cat([torch.zeros(1, dtype=torch.int32), lengths.cumsum(0).int()])
    make = torch.Generator().manual_seed(0)
    q, k, v = packed = tuple(torch.randn(int(cu[-1]), heads, WIDTH, generator=make) for _ in range(3))
    parts = [slice(*pair) for pair in zip(cu[:-1].tolist(), cu[1:].tolist(), strict=True)]
    alone = [tuple(t[part].transpose(0, 1)[None].contiguous() for t in packed) for part in parts]
    padded = tuple(torch.zeros(count, heads, longest, WIDTH) for _ in range(3))
    for document, tensors in enumerate(alone):
        for whole, own in zip(padded, tensors, strict=True):
            whole[document, :, : own.shape[2]] = own[0]
    layout = Ragged(cu, cu)
    truth = [_causal_rows(tensors, _rows(tensors[0].shape[2])) for tensors in alone]

    def worst(of: Callable[[Any, int], Tensor]) -> Callable[[Any], float]:
        """of: a result and a document -> its output [H,T,D]."""
        return lambda found: max(
            off(of(found, d)[:, _rows(part.stop - part.start)], truth[d]) for d, part in enumerate(parts)
        )

    contestants = {
        "sdpa, padded": Contestant(lambda: _sdpa(*padded), worst(lambda found, d: found[d])),
        "sdpa, one by one": Contestant(
            lambda: [_sdpa(*tensors) for tensors in alone], worst(lambda found, d: found[d][0])
        ),
        "native, packed": Contestant(
            lambda: _out(ragged(q, k, v, layout)), worst(lambda found, d: found[parts[d]].transpose(0, 1))
        ),
    }
    return Case(
        "sdpa, padded",
        contestants,
        also=(("native, packed", "sdpa, one by one"),),
        note=f"{count} documents of {int(lengths.min())} to {longest} tokens, {heads} heads of {WIDTH}",
    )


def decode(sequences: int, tokens: int, heads: int = 9, groups: int = 3, page_size: int = 16) -> Case:
    """One new token a sequence on scattered pages, against reading the bytes, the same kernel on contiguous memory,
    and transformers' gather."""
    make = torch.Generator().manual_seed(0)
    q = torch.randn(sequences, heads, WIDTH, generator=make)
    k, v = (torch.randn(sequences, groups, tokens, WIDTH, generator=make) for _ in range(2))
    scores = (q.double().view(sequences, groups, -1, WIDTH) @ k.double().mT) * WIDTH**-0.5
    truth = (scores.softmax(-1) @ v.double()).view(sequences, heads, WIDTH)
    flat = [torch.randn(k.numel(), generator=make) for _ in range(2)]
    order = torch.randperm(sequences * tokens // page_size, generator=make).int().view(sequences, -1)

    def error(out: Tensor) -> float:
        return off(out, truth)

    def one_run() -> Tensor:
        """Each key-value head of each sequence is a sequence of its own, whose pages lie in order: no jump in it."""
        return contiguous().view(sequences, heads, WIDTH)

    own_k, own_v = (t.reshape(sequences * groups, 1, tokens, WIDTH) for t in (k, v))
    contiguous = _decoder(q.view(sequences * groups, heads // groups, WIDTH), own_k, own_v, page_size)
    contestants = {
        "read the bytes": Contestant(lambda: [t.sum() for t in flat]),
        "native, paged": Contestant(_decoder(q, k, v, page_size, order), error),
        "native, contiguous": Contestant(one_run, error),
        "native, pages in order": Contestant(_decoder(q, k, v, page_size), error),
        "native, pages of 256": Contestant(_decoder(q, k, v, 256), error),
        "transformers, gathered": Contestant(gathered.step(q, k, v, order), error),
    }
    size = 2 * k.numel() * 4 / 2**20
    other = torch.ones(CACHE_FLOATS)
    return Case(
        "read the bytes",
        contestants,
        also=(("native, paged", "native, contiguous"), ("native, paged", "transformers, gathered")),
        note=f"{size:.0f} MiB of keys and values, {heads} query heads on {groups} of {WIDTH}, pages of {page_size}; "
        "contiguous: the same kernel, the keys of a head of a sequence in one run of memory",
        before=other.sum,
    )


def _decoder(q: Tensor, k: Tensor, v: Tensor, page_size: int, order: Tensor | None = None) -> Callable[[], Tensor]:
    """The kernel on k, v [S,G,T,D] in pages, which lie in order unless a table [S, pages] says otherwise."""
    sequences, groups, tokens, _ = k.shape
    per = -(-tokens // page_size)
    pages = new_pages(sequences * per, groups, WIDTH, WIDTH, page_size)
    for part in pages:
        part.zero_()
    table = torch.arange(sequences * per).int().view(sequences, per) if order is None else order
    slots = (table.long()[:, :, None] * page_size + torch.arange(page_size)).view(sequences, -1)[:, :tokens]
    for s in range(sequences):
        write_pages(k[s].transpose(0, 1), v[s].transpose(0, 1), slots[s], *pages)
    layout = Paged(table, torch.full((sequences,), tokens, dtype=torch.int32), page_size)
    return lambda: _out(paged_decode(q, *pages, layout))


def _sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return sdpa(q, k, v, is_causal=True)


def _out(found: Output) -> Tensor:
    assert found.out is not None
    return found.out


def _rows(length: int) -> list[int]:
    return sorted({0, length // 2, length - 1})


def _causal_rows(tensors: tuple[Tensor, ...], rows: list[int]) -> Tensor:
    """float64 output [H,rows,D] of some rows of one document, q, k, v [1,H,T,D]."""
    q, k, v = (t[0].double() for t in tensors)
    outs = [((q[:, [r]] @ k[:, : r + 1].mT) * WIDTH**-0.5).softmax(-1) @ v[:, : r + 1] for r in rows]
    return torch.cat(outs, 1)
