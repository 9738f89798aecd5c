"""One decoding step from pages, on a GPU: the newest query of every sequence."""

from __future__ import annotations

import torch
from torch import Tensor

from regard.core.layout import Paged
from regard.errors import UserError
from regard.run.output import Output
from regard.run.triton.arguments import Pages, line
from regard.run.triton.available import why_unavailable
from regard.run.triton.shapes import DECODE, WIDEST, padded, power_of_two, shape_for

SPLIT = 512


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
    """The newest query of every sequence against all its keys.

    q [S,H,Dk], key_pages [pages,G,Dk,page_size], value_pages [pages,G,page_size,Dv], all float32, bfloat16 or float16;
    starts int32 [S], sink [H]. Gives out [S,H,Dv] in q's type, row_max and
    row_log_sum float32 [S,H]. A sequence's bits depend on itself alone. Nothing waits for the GPU, so entries of the
    table are not checked; one outside the pool reads page 0. Raises UserError where the kernels cannot run.
    """
    sequences, heads, width = q.shape
    groups, value_width = key_pages.shape[1], value_pages.shape[3]
    reason = why_unavailable(q.device)
    if reason is None and max(width, value_width) > WIDEST:
        reason = f"heads are {max(width, value_width)} wide; a tile holds widths up to {WIDEST}"
    if reason is not None:
        raise UserError(f"the Triton kernels cannot decode: {reason}")
    shape = shape_for(DECODE, max(padded(width), padded(value_width)), q.dtype)
    num_splits = max(1, -(-layout.block_table.shape[1] * key_pages.shape[3] // SPLIT))
    out = q.new_empty((sequences, heads, value_width))
    row_max, row_log_sum = (q.new_empty((sequences, heads), dtype=torch.float32) for _ in range(2))
    peaks, totals = (q.new_empty((sequences, heads, num_splits), dtype=torch.float32) for _ in range(2))
    mixed = q.new_empty((sequences, heads, num_splits, value_width), dtype=torch.float32)
    if sequences:
        lengths, table = (t.to(torch.int32).contiguous() for t in (layout.lengths, layout.block_table))
        first = None if starts is None else starts.to(torch.int32).contiguous()
        _launch(
            (q, key_pages, value_pages, table, lengths, first),
            (peaks, totals, mixed),
            (out, row_max, row_log_sum),
            width**-0.5 if scale is None else float(scale),
            None if sink is None else sink.detach().float().contiguous(),
            heads // groups,
            {"BLOCK_N": shape.keys, "num_warps": shape.warps, "num_stages": shape.stages},
        )
    return Output(out, row_max, row_log_sum)


def _launch(
    inputs: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None],
    partial: tuple[Tensor, Tensor, Tensor],
    results: tuple[Tensor, Tensor, Tensor],
    scale: float,
    sink: Tensor | None,
    shared: int,
    settings: dict[str, int],
) -> None:
    from regard.run.triton.kernels.decode import merge_kernel, split_kernel

    q, key_pages, value_pages, table, lengths, starts = inputs
    sequences, heads, width = q.shape
    value_width, num_splits = value_pages.shape[3], partial[0].shape[2]
    values = {"VALUE_WIDTH": value_width, "VALUE_PADDED": padded(value_width)}
    split_kernel[(num_splits * sequences * (heads // shared),)](
        line(q.detach()),
        _pages(key_pages),
        _pages(value_pages),
        table,
        table.stride(0),
        lengths,
        starts,
        *partial,
        heads,
        shared,
        scale,
        num_splits,
        WINDOWED=starts is not None,
        ROWS=max(16, power_of_two(shared)),
        SPLIT=SPLIT,
        PAGE=key_pages.shape[3],
        WIDTH=width,
        PADDED=padded(width),
        **values,
        **settings,
    )
    out, row_max, row_log_sum = results
    merge_kernel[(sequences * heads,)](
        out,
        lengths,
        starts,
        sink,
        *partial,
        row_max,
        row_log_sum,
        heads,
        num_splits,
        WINDOWED=starts is not None,
        SINK=sink is not None,
        SPLIT=SPLIT,
        **values,
    )


def _pages(pages: Tensor) -> Pages:
    return Pages(pages.detach(), pages.shape[0], pages.stride(0))
