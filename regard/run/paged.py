"""Attention over keys and values that live in pages, by the native core, and the pages themselves."""

from __future__ import annotations

import torch
from torch import Tensor

from regard import core
from regard.core.ranges import Ranges
from regard.run.layout import PAGE_SIZES, Paged
from regard.run.limits import STORED
from regard.run.native import calls
from regard.run.native.extension import extension
from regard.run.output import Output
from regard.run.ragged import documents_run
from regard.run.triton import decode


def new_pages(
    num_pages: int,
    groups: int,
    key_width: int,
    value_width: int,
    page_size: int = 16,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Tensor]:
    """Uninitialised (key_pages, value_pages); on the CPU on large memory pages where the system grants them.

    dtype: float32, or bfloat16 or float16, which take half the memory and the time to read it.
    """
    if dtype not in STORED:
        raise ValueError(f"pages hold float32, bfloat16 or float16, got {dtype}")
    if page_size not in PAGE_SIZES:
        raise ValueError(f"pages hold {PAGE_SIZES} tokens, got {page_size}")
    keys = torch.empty((num_pages, groups, key_width, page_size), dtype=dtype, device=device)
    values = torch.empty((num_pages, groups, page_size, value_width), dtype=dtype, device=device)
    for pages in (keys, values) if keys.device.type == "cpu" else ():
        extension().advise_huge(pages.data_ptr(), pages.numel() * pages.element_size())
    return keys, values


def write_pages(k: Tensor, v: Tensor, slots: Tensor, key_pages: Tensor, value_pages: Tensor) -> None:
    """Put tokens into pages, in place, rounded to their type. k [T,G,Dk], v [T,G,Dv]; slots int64 [T]: page ·
    page_size + place."""
    check_pages(key_pages, value_pages)
    capacity = key_pages.shape[0] * key_pages.shape[3]
    if slots.numel() and not 0 <= int(slots.min()) <= int(slots.max()) < capacity:
        raise ValueError(f"slots must lie in 0 … {capacity - 1}, got {int(slots.min())} … {int(slots.max())}")
    for name, x, pages, width in (("k", k, key_pages, 2), ("v", v, value_pages, 3)):
        if x.shape != (slots.shape[0], pages.shape[1], pages.shape[width]):
            expected = [slots.shape[0], pages.shape[1], pages.shape[width]]
            raise ValueError(f"{name} must be {expected} like its pages, got {list(x.shape)}")
    if key_pages.device.type != "cpu":
        page, place = slots // key_pages.shape[3], slots % key_pages.shape[3]
        key_pages[page, :, :, place], value_pages[page, :, place] = k.to(key_pages.dtype), v.to(key_pages.dtype)
        return
    call = calls.Call()
    tokens = [call.view(calls.unit_stride(x.detach().to(key_pages.dtype))) for x in (k, v)]
    call.native.write_pages(*tokens, call.view(slots.to(torch.int64)), call.view(key_pages), call.view(value_pages))


def check_pages(key_pages: Tensor, value_pages: Tensor) -> None:
    for name, pages in (("key_pages", key_pages), ("value_pages", value_pages)):
        if pages.dtype not in STORED or not pages.is_contiguous() or pages.ndim != 4:
            raise ValueError(
                f"{name} must be contiguous float32, bfloat16 or float16 with 4 dimensions, got {pages.dtype} "
                f"{list(pages.shape)}"
            )
    if key_pages.dtype != value_pages.dtype:
        raise ValueError(f"key pages are {key_pages.dtype} and value pages {value_pages.dtype}; they must agree")
    if key_pages.shape[:2] != value_pages.shape[:2] or key_pages.shape[3] != value_pages.shape[2]:
        raise ValueError(
            f"key pages [pages, G, Dk, size] {list(key_pages.shape)} and value pages [pages, G, size, Dv] "
            f"{list(value_pages.shape)} do not belong together"
        )


def paged(
    q: Tensor,
    key_pages: Tensor,
    value_pages: Tensor,
    layout: Paged,
    cu_query: Tensor | None = None,
    *,
    terms: tuple[core.Term, ...] | None = None,
    ranges: Ranges | None = None,
    softmax: core.Softmax | None = None,
    watch: core.Watch | None = None,
    output: bool = True,
) -> Output:
    """Attention of the newest tokens of every sequence against all its keys: prefill in chunks, decoding, both at once.

    q [Tq,H,Dk] float32, bfloat16 or float16: the new tokens of all sequences side by side, those of sequence s from
    cu_query[s] to cu_query[s + 1] - 1 (default: one each); the last of them stands at slot lengths[s] - 1, and the
    pages hold it already. terms, ranges, softmax and what is given per token are as in `ragged`, its documents being
    `layout.documents(cu_query)`; so is the result. A page is read once for each block of 64 queries and shared by the
    heads of a group; `paged_decode` is the faster one where each sequence has one query and nothing is watched.
    """
    check_pages(key_pages, value_pages)
    documents = layout.documents(cu_query)
    _check_query(q, key_pages, layout, len(documents.cu_query) - 1, int(documents.cu_query[-1]))
    query_positions, key_positions = documents.positions()
    (_, groups, width, _), value_width = key_pages.shape, value_pages.shape[3]
    k, v = (q.new_empty(d).expand(1, groups, len(key_positions), d) for d in (width, value_width))  # shapes alone
    plan = core.Plan(
        q.transpose(0, 1)[None],
        k,
        v,
        query_positions[None],
        key_positions[None],
        terms or (core.Dot(width**-0.5),),
        ranges or documents.causal(),
        softmax or core.Softmax(),
    )
    table = layout.block_table.int()
    call = calls.Call()
    views = call.view(table), call.view(layout.lengths.int())
    call.native.check_table(*views, layout.page_size, key_pages.shape[0])
    pages = (key_pages, value_pages, table)
    return documents_run(
        plan, watch, output, calls.Documents(documents.cu_query.tolist(), documents.cu_key.tolist(), pages)
    )


def _check_query(q: Tensor, key_pages: Tensor, layout: Paged, sequences: int, tokens: int) -> None:
    _, groups, width, size = key_pages.shape
    if q.ndim != 3 or q.shape[2] != width or q.shape[1] % groups or q.shape[0] != tokens:
        raise ValueError(
            f"q must be [{tokens} new tokens, heads, {width}] with heads a multiple of {groups}, got {list(q.shape)}"
        )
    if layout.page_size != size or sequences != len(layout.lengths):
        raise ValueError(
            f"the layout has {len(layout.lengths)} sequences and pages of {layout.page_size}, the queries are of "
            f"{sequences} and the pages hold {size}"
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

    q [S,H,Dk]; scale: default 1/√Dk; starts int32 [S]: the first visible key slot (a window), default 0; sink
    [H]: a learned extra logit. Gives out [S,H,Dv], row_max and row_log_sum [S,H].

    Long sequences are cut every 2,048 tokens (512 on a GPU) and joined in order, so a result depends on its own
    sequence alone, not on the batch or the number of threads. On a GPU entries of the table are not checked.
    """
    check_pages(key_pages, value_pages)
    _check_query(q, key_pages, layout, len(q), len(q))
    if q.is_cuda:
        return decode.paged_decode(q, key_pages, value_pages, layout, scale=scale, starts=starts, sink=sink)
    sequences, heads, width = q.shape
    call = calls.Call()
    raw = call.native.Decode()
    out = torch.empty((sequences, heads, value_pages.shape[3]))
    row_max, row_log_sum = torch.empty((sequences, heads)), torch.empty((sequences, heads))
    raw.q, raw.out = call.float_view(calls.unit_stride(q)), call.view(out)
    raw.row_max, raw.row_log_sum = call.view(row_max), call.view(row_log_sum)
    raw.key_pages, raw.value_pages = call.view(key_pages), call.view(value_pages)
    raw.block_table, raw.lengths = call.view(layout.block_table.int()), call.view(layout.lengths.int())
    raw.starts = call.view(None if starts is None else starts.int())
    raw.sink = call.float_view(sink)
    raw.scale = width**-0.5 if scale is None else float(scale)
    raw.run(torch.get_num_threads())
    return Output(out.to(q.dtype), row_max, row_log_sum)
