"""Layouts: how logical positions map to memory, where that is not a dense [batch, heads, tokens, width].

Ragged: documents side by side in one packed [tokens, heads, width]; nothing is padded and nothing crosses.
Paged: a pool of pages that sequences own by table; a page holds some tokens of every key-value head.

A page stores keys with a feature of all its tokens side by side, so that one load takes a feature of many tokens:

    key_pages   [pages, G, Dk, page_size]      value_pages [pages, G, page_size, Dv]
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from regard import core
from regard.ranges import Ranges
from regard.run.native import calls
from regard.run.native.extension import extension
from regard.run.output import Output
from regard.run.triton import decode

PAGE_SIZES = (16, 32, 64, 128, 256)


@dataclass(frozen=True, eq=False)
class Ragged:
    """cu_query, cu_key: int32 [S + 1], ascending from 0: document s holds the tokens cu[s] … cu[s + 1] - 1."""

    cu_query: Tensor
    cu_key: Tensor

    def __post_init__(self) -> None:
        for name, cu in (("cu_query", self.cu_query), ("cu_key", self.cu_key)):
            if cu.ndim != 1 or cu.numel() < 1 or int(cu[0]) != 0 or bool((cu[1:] < cu[:-1]).any()):
                raise ValueError(f"{name} must be ascending integers [documents + 1] from 0, got {cu.tolist()[:8]} …")
        if self.cu_query.shape != self.cu_key.shape:
            raise ValueError(f"{len(self.cu_query) - 1} documents of queries and {len(self.cu_key) - 1} of keys")

    @property
    def num_documents(self) -> int:
        return self.cu_query.numel() - 1

    def positions(self) -> tuple[Tensor, Tensor]:
        """int64 positions of all queries and keys: keys count from 0, the last query stands at the last key."""
        lengths = (self.cu_key[1:] - self.cu_key[:-1]) - (self.cu_query[1:] - self.cu_query[:-1])
        return _place_in_document(self.cu_query) + _repeat(self.cu_query, lengths), _place_in_document(self.cu_key)

    def causal(self, window: int | None = None, sinks: int = 0) -> Ranges:
        """Ranges [1, 1, queries, 1 or 2] in each document's own key slots: up to the own position, within a window
        of so many tokens and the first `sinks`, where given."""
        own = self.positions()[0]
        stop = (own + 1).clamp(min=0)
        start = torch.zeros_like(own) if window is None else (stop - window).clamp(min=0)
        first_stop = torch.minimum(stop.clamp(max=sinks), start)
        pairs = [(start, stop)] if sinks == 0 else [(torch.zeros_like(own), first_stop), (start, stop)]
        table = [torch.stack([pair[i] for pair in pairs], -1)[None, None].to(torch.int32) for i in (0, 1)]
        return Ranges(table[0], table[1], self.longest_key())

    def full(self) -> Ranges:
        """Ranges [1, 1, queries, 1]: every query sees every key of its document."""
        stop = _repeat(self.cu_query, self.cu_key[1:] - self.cu_key[:-1]).to(torch.int32)[None, None, :, None]
        return Ranges(torch.zeros_like(stop), stop, self.longest_key())

    def longest_key(self) -> int:
        """The number of keys of the longest document."""
        return int((self.cu_key[1:] - self.cu_key[:-1]).amax()) if self.num_documents else 0


def _repeat(cu: Tensor, values: Tensor) -> Tensor:
    """values[s] for every token of document s, int64."""
    return values.long().repeat_interleave((cu[1:] - cu[:-1]).long())


def _place_in_document(cu: Tensor) -> Tensor:
    return torch.arange(int(cu[-1])) - _repeat(cu, cu[:-1])


def ragged(
    q: Tensor,
    k: Tensor,
    v: Tensor | None,
    layout: Ragged,
    *,
    terms: tuple[core.Term, ...] | None = None,
    ranges: Ranges | None = None,
    softmax: core.Softmax | None = None,
    watch: core.Watch | None = None,
    output: bool = True,
) -> Output:
    """Attention of every document within itself, by the native core, in one go.

    q [Tq,H,Dk], k [Tk,G,Dk], v [Tk,G,Dv], tokens of all documents. terms: default Dot(1/√Dk). ranges: [1, H or 1,
    Tq, R] in each document's own key slots, default `layout.causal()`. Positions are `layout.positions()`. What a
    watch says per token is packed likewise, [1, tokens]. Gives out [Tq,H,Dv], rows [H,Tq], columns [H,Tk], top-k
    [H,Tq,k] and histograms [S,H,bins].
    """
    query_positions, key_positions = layout.positions()
    if len(query_positions) != q.shape[0] or len(key_positions) != k.shape[0]:
        raise ValueError(
            f"the layout holds {len(query_positions)} queries and {len(key_positions)} keys, the tensors "
            f"{q.shape[0]} and {k.shape[0]}"
        )
    plan = core.Plan(
        q.transpose(0, 1)[None],
        k.transpose(0, 1)[None],
        None if v is None else v.transpose(0, 1)[None],
        query_positions[None],
        key_positions[None],
        terms or (core.Dot(q.shape[-1] ** -0.5),),
        ranges or layout.causal(),
        softmax or core.Softmax(),
    )
    reason = refuses_ragged(plan, watch, output and calls.wants_grad(plan))
    if reason is not None:
        raise ValueError(f"the native core cannot run this on documents: {reason}")
    cu = [c.tolist() for c in (layout.cu_query, layout.cu_key)]
    return _without_batch(calls.walk(plan, watch, output, documents=(cu[0], cu[1])), watch)


def refuses_ragged(plan: core.Plan, watch: core.Watch | None, needs_grad: bool) -> str | None:
    """Why packed documents cannot be run so; None if they can."""
    if any(isinstance(term, core.Table) for term in plan.terms):
        return "Table: a bias per pair of tokens has no packed form"
    if watch is not None and any(isinstance(s, core.Pool) for s in watch.statistics):
        return "Pool: a map of several documents has no one shape; watch them one by one"
    if needs_grad:
        return "gradients: packed documents have no backward"
    return calls.refusal(plan, watch, needs_grad)


def _without_batch(found: Output, watch: core.Watch | None) -> Output:
    """The same with packed tokens: out [Tq,H,Dv], and the leading 1 of all but histograms gone."""
    statistics = tuple(
        tuple(t[0] for t in s) if isinstance(s, tuple) else s if isinstance(w, core.DistanceHistogram) else s[0]
        for s, w in zip(found.statistics, () if watch is None else watch.statistics, strict=True)
    )
    assert found.row_max is not None and found.row_log_sum is not None
    out = None if found.out is None else found.out[0].transpose(0, 1)
    return Output(out, found.row_max[0], found.row_log_sum[0], statistics)


@dataclass(frozen=True, eq=False)
class Paged:
    """block_table int32 [S, pages]: the pages of each sequence, in order; lengths int32 [S]: its tokens.

    page_size: tokens of a page. Entries beyond a sequence's last page are not read.
    """

    block_table: Tensor
    lengths: Tensor
    page_size: int

    def __post_init__(self) -> None:
        if self.page_size not in PAGE_SIZES:
            raise ValueError(f"pages hold {PAGE_SIZES} tokens, got {self.page_size}")
        if self.block_table.ndim != 2 or self.lengths.shape != self.block_table.shape[:1]:
            raise ValueError(
                f"block_table must be [sequences, pages] and lengths [sequences], got {list(self.block_table.shape)} "
                f"and {list(self.lengths.shape)}"
            )
        if self.lengths.numel() and int(self.lengths.max()) > self.block_table.shape[1] * self.page_size:
            raise ValueError(f"a sequence of {int(self.lengths.max())} tokens does not fit its pages")


def new_pages(
    num_pages: int, groups: int, key_width: int, value_width: int, page_size: int = 16
) -> tuple[Tensor, Tensor]:
    """Uninitialised float32 (key_pages, value_pages), on large memory pages where the system grants them."""
    if page_size not in PAGE_SIZES:
        raise ValueError(f"pages hold {PAGE_SIZES} tokens, got {page_size}")
    keys = torch.empty((num_pages, groups, key_width, page_size))
    values = torch.empty((num_pages, groups, page_size, value_width))
    for pages in (keys, values):
        extension().advise_huge(pages.data_ptr(), pages.numel() * 4)
    return keys, values


def write_pages(k: Tensor, v: Tensor, slots: Tensor, key_pages: Tensor, value_pages: Tensor) -> None:
    """Put tokens into pages, in place. k [T,G,Dk], v [T,G,Dv]; slots int64 [T]: page · page_size + place."""
    _check_pages(key_pages, value_pages)
    capacity = key_pages.shape[0] * key_pages.shape[3]
    if slots.numel() and not 0 <= int(slots.min()) <= int(slots.max()) < capacity:
        raise ValueError(f"slots must lie in 0 … {capacity - 1}, got {int(slots.min())} … {int(slots.max())}")
    for name, x, pages, width in (("k", k, key_pages, 2), ("v", v, value_pages, 3)):
        if x.shape != (slots.shape[0], pages.shape[1], pages.shape[width]):
            expected = [slots.shape[0], pages.shape[1], pages.shape[width]]
            raise ValueError(f"{name} must be {expected} like its pages, got {list(x.shape)}")
    call = calls.Call()
    tokens = [call.float_view(calls.unit_stride(x)) for x in (k, v)]
    call.native.write_pages(*tokens, call.view(slots.to(torch.int64)), call.view(key_pages), call.view(value_pages))


def _check_pages(key_pages: Tensor, value_pages: Tensor) -> None:
    stored = (torch.float32, torch.bfloat16, torch.float16) if key_pages.is_cuda else (torch.float32,)
    for name, pages in (("key_pages", key_pages), ("value_pages", value_pages)):
        if pages.dtype not in stored or not pages.is_contiguous() or pages.ndim != 4:
            raise ValueError(f"{name} must be contiguous float32 with 4 dimensions, got {pages.dtype} {pages.shape}")
    if key_pages.shape[:2] != value_pages.shape[:2] or key_pages.shape[3] != value_pages.shape[2]:
        raise ValueError(
            f"key pages [pages, G, Dk, size] {list(key_pages.shape)} and value pages [pages, G, size, Dv] "
            f"{list(value_pages.shape)} do not belong together"
        )


def paged_decode(
    q: Tensor,
    key_pages: Tensor,
    value_pages: Tensor,
    layout: Paged,
    *,
    scale: float | None = None,
    starts: Tensor | None = None,
    sink: Tensor | None = None,
) -> Output:
    """One decoding step: the newest query of every sequence against all its keys, page by page.

    q [S,H,Dk] in the pages' type, on the CPU float32; scale: default 1/√Dk; starts int32 [S]: the first visible key
    slot (a window), default 0; sink [H]: a learned extra logit. Gives out [S,H,Dv], row_max and row_log_sum [S,H].

    Long sequences are cut every 2,048 tokens (512 on a GPU) and joined in order, so a result depends on its own
    sequence alone, not on the batch or the number of threads. On a GPU the table's entries are not checked.
    """
    _check_pages(key_pages, value_pages)
    sequences, heads, width = q.shape
    if q.dtype != key_pages.dtype or width != key_pages.shape[2] or heads % key_pages.shape[1]:
        raise ValueError(
            f"q must be {key_pages.dtype} [sequences, heads, {key_pages.shape[2]}] with heads a multiple of "
            f"{key_pages.shape[1]}, got {q.dtype} {list(q.shape)}"
        )
    if layout.page_size != key_pages.shape[3] or sequences != layout.lengths.shape[0]:
        raise ValueError(
            f"the layout has {layout.lengths.shape[0]} sequences and pages of {layout.page_size}, the tensors "
            f"{sequences} and {key_pages.shape[3]}"
        )
    if q.is_cuda:
        table, lengths = layout.block_table, layout.lengths
        return decode.paged_decode(q, key_pages, value_pages, table, lengths, scale=scale, starts=starts, sink=sink)
    _check_table(layout, key_pages.shape[0])
    call = calls.Call()
    raw = call.native.Decode()
    out = torch.empty((sequences, heads, value_pages.shape[3]))
    row_max, row_log_sum = torch.empty((sequences, heads)), torch.empty((sequences, heads))
    raw.q, raw.out = call.view(calls.unit_stride(q.detach())), call.view(out)
    raw.row_max, raw.row_log_sum = call.view(row_max), call.view(row_log_sum)
    raw.key_pages, raw.value_pages = call.view(key_pages), call.view(value_pages)
    raw.block_table, raw.lengths = call.view(layout.block_table.int()), call.view(layout.lengths.int())
    raw.starts = call.view(None if starts is None else starts.int())
    raw.sink = call.float_view(sink)
    raw.scale = width**-0.5 if scale is None else float(scale)
    raw.run(torch.get_num_threads())
    return Output(out, row_max, row_log_sum)


def _check_table(layout: Paged, num_pages: int) -> None:
    """Every page that is read must exist."""
    used = torch.arange(layout.block_table.shape[1]) * layout.page_size < layout.lengths[:, None]
    pages = layout.block_table[used]
    if pages.numel() and not 0 <= int(pages.min()) <= int(pages.max()) < num_pages:
        raise ValueError(f"block_table names pages {int(pages.min())} … {int(pages.max())} of {num_pages}")
