"""Cases of other layouts: documents side by side, and one decoding step on pages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa

from regard.bench.cases import gathered, pages, peers
from regard.bench.cases.case import Case, Contestant, off, worst
from regard.core.layout import Paged, Ragged
from regard.inputs import packed_inputs
from regard.mechanism import Mechanism
from regard.run.attention import attention
from regard.run.choose import choose
from regard.run.pages import new_pages, write_pages
from regard.zoo import card

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

    def error(of: Callable[[Any, int], Tensor]) -> Callable[[Any], float]:
        """of: a result and a document -> its output [H,T,D]."""
        return lambda found: worst(
            off(of(found, d)[:, _rows(part.stop - part.start)], truth[d]) for d, part in enumerate(parts)
        )

    contestants = {
        "sdpa, padded": Contestant(lambda: _sdpa(*padded), error(lambda found, d: found[d])),
        "sdpa, one by one": Contestant(
            lambda: [_sdpa(*tensors) for tensors in alone], error(lambda found, d: found[d][0])
        ),
        "native, packed": Contestant(
            lambda: attention(q, k, v, "causal", layout=layout), error(lambda found, d: found[parts[d]].transpose(0, 1))
        ),
    }
    return Case(
        "sdpa, padded",
        contestants,
        also=(("native, packed", "sdpa, one by one"),),
        note=f"{count} documents of {int(lengths.min())} to {longest} tokens, {heads} heads of {WIDTH}",
    )


def decode(lengths: list[int], heads: int = 9, groups: int = 3, page_size: int = 16) -> Case:
    """One new token a sequence on scattered pages, against reading the bytes, the same kernel on contiguous memory,
    and transformers' gather."""
    make = torch.Generator().manual_seed(0)
    q = torch.randn(len(lengths), heads, WIDTH, generator=make)
    keys, values = ([torch.randn(groups, n, WIDTH, generator=make) for n in lengths] for _ in range(2))
    truth = torch.stack([_newest(*own) for own in zip(q, keys, values, strict=True)])
    flat = [torch.randn(groups * WIDTH * sum(lengths), generator=make) for _ in range(2)]

    def error(out: Tensor) -> float:
        return off(out, truth)

    # each key-value head of each sequence as a sequence of its own, whose pages lie in order: one run of memory
    alone = [[head[None] for own in tensors for head in own] for tensors in (keys, values)]
    contiguous = _decoder(q.view(-1, heads // groups, WIDTH), alone[0], alone[1], page_size)
    contestants = {
        "read the bytes": Contestant(lambda: [peers.read(t) for t in flat]),
        "native, paged": Contestant(_decoder(q, keys, values, page_size, make), error),
        "native, contiguous": Contestant(lambda: contiguous().view_as(q), error),
        "native, pages in order": Contestant(_decoder(q, keys, values, page_size), error),
        "native, pages of 256": Contestant(_decoder(q, keys, values, 256), error),
        "transformers, gathered": Contestant(gathered.step(q, keys, values, make), error),
    }
    other = torch.ones(CACHE_FLOATS)
    size = sum(t.numel() for t in flat) * 4 / 2**20
    return Case(
        "read the bytes",
        contestants,
        also=(("native, paged", "native, contiguous"), ("native, paged", "transformers, gathered")),
        note=f"{size:.0f} MiB of keys and values, {heads} query heads on {groups} of {WIDTH}, pages of {page_size}; "
        "contiguous: the same kernel, each head's keys of a sequence in one run of memory, its values likewise; "
        "gathered: transformers' cache, mask (built beforehand) and sdpa function",
        before=other.sum,
    )


def _decoder(
    q: Tensor, keys: list[Tensor], values: list[Tensor], page_size: int, scatter: torch.Generator | None = None
) -> Callable[[], Tensor]:
    """The kernel on keys and values [G,T,D] of each sequence, in pages that lie in order or scattered."""
    lengths = [own.shape[1] for own in keys]
    table = pages.table(lengths, page_size, scatter)
    count = sum(-(-length // page_size) for length in lengths)
    pool = new_pages(count, keys[0].shape[0], WIDTH, WIDTH, page_size)
    for part in pool:
        part.zero_()
    for k, v, slots in zip(keys, values, pages.slots(table, lengths, page_size), strict=True):
        write_pages(k.transpose(0, 1), v.transpose(0, 1), slots, *pool)
    layout = Paged(table, torch.tensor(lengths, dtype=torch.int32), page_size)
    causal = card("causal").make()
    assert isinstance(causal, Mechanism)
    step = choose(causal, packed_inputs(q, *pool, layout), "native")
    return lambda: step.output()[0].transpose(0, 1)


def _newest(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """float64 output [H,D] of one query [H,D] on all keys [G,T,D] of its sequence."""
    scores = q.double().view(k.shape[0], -1, WIDTH) @ k.double().mT * WIDTH**-0.5
    return (scores.softmax(-1) @ v.double()).view_as(q)


def _sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return sdpa(q, k, v, is_causal=True)


def _rows(length: int) -> list[int]:
    return sorted({0, length // 2, length - 1})


def _causal_rows(tensors: tuple[Tensor, ...], rows: list[int]) -> Tensor:
    """float64 output [H,rows,D] of some rows of one document, q, k, v [1,H,T,D]."""
    q, k, v = (t[0].double() for t in tensors)
    outs = [((q[:, [r]] @ k[:, : r + 1].mT) * WIDTH**-0.5).softmax(-1) @ v[:, : r + 1] for r in rows]
    return torch.cat(outs, 1)
