"""Longformer's and LED's sliding band with global tokens, placed at true positions (Beltagy 2020, section 3.1).

The module makes, for each row, weights on its global keys and on the 2w + 1 keys around it; rows that are global
attend to all keys in a second softmax. With g the global keys of a sequence, in order:

    W[i, g_c] = P[i, c] for c < G,   W[i, i + c - w] = P[i, G + c] for c ≤ 2w,   W[g_r, j] = R[r, j].

Local weights on global keys are 0 in P, so no cell is written twice.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from regard.hf.own_code.flow import Followed
from regard.hf.own_code.places.attended import Attended
from regard.hf.own_code.seen import Doubt, Seen


def read_band(attended: Attended, followed: list[Followed]) -> list[Seen | Doubt]:
    """The attention of one Longformer-like module, from its one or two softmaxes."""
    module: Any = attended.module
    flags = attended.argument("is_index_global_attn")
    is_global = bool(attended.argument("is_global_attn"))
    band = followed[0].made.detach()
    width = 2 * int(module.one_sided_attn_window_size) + 1
    extra = int(flags.sum(1).max()) if is_global else 0
    expected = (module.num_heads, extra + width)
    if band.ndim != 4 or band.shape[2:] != expected or len(followed) != 1 + is_global:
        reason = f"its band {list(band.shape)} is not [batch, queries, heads, {extra} + {width}]"
        return [Doubt(attended.name, module, reason)]
    batch, length, heads, _ = band.shape
    rows = None
    if is_global:
        rows = followed[1].made.detach()
        if rows.numel() != batch * heads * extra * length:
            return [Doubt(attended.name, module, f"its global rows {list(rows.shape)} are not {extra} in a head")]
        rows = rows.reshape(batch, heads, extra, length)
    band = _cleared(band, attended.argument("is_index_masked"))

    def rows_of(start: int, stop: int) -> Tensor:
        return _placed(band, rows, flags if is_global else None, extra, start, stop)

    certain = (
        f"a softmax over {width} neighbouring keys" + (f" and {extra} global ones" if extra else ""),
        "the class's own layout: [batch, queries, heads, keys around each]",
    )
    shape = (batch, heads, length, length)
    return [Seen(attended.name, module, 0, shape, rows_of, "band", certain, followed[0].dropped)]


def _cleared(band: Tensor, masked: Tensor | None) -> Tensor:
    """Rows of masked queries are 0 before they meet the values."""
    return band if masked is None else band.masked_fill(masked[:, :, None, None], 0.0)


def _placed(band: Tensor, rows: Tensor | None, flags: Tensor | None, extra: int, start: int, stop: int) -> Tensor:
    """Rows start to stop as [B, H, rows, T]."""
    batch, length, heads, wide = band.shape
    part = band[:, start:stop].transpose(1, 2)
    side = (wide - extra - 1) // 2
    at = torch.arange(start, stop, device=band.device)[:, None] + torch.arange(wide - extra, device=band.device) - side
    inside = (at >= 0) & (at < length)
    out = band.new_zeros(batch, heads, stop - start, length)
    at = at.clamp(0, length - 1).expand(batch, heads, -1, -1)
    out.scatter_add_(-1, at, part[..., extra:] * inside)
    if flags is None or rows is None:
        return out
    for b in range(batch):
        keys = flags[b].nonzero()[:, 0]
        out[b, :, :, keys] += part[b, :, :, : len(keys)]
        here = (keys >= start) & (keys < stop)
        out[b, :, keys[here] - start] = rows[b, :, : len(keys)][:, here].to(out.dtype)
    return out
