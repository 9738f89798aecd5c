"""Pages for keys and values: made, and written to. Their layout is that of core/layout.py."""

from __future__ import annotations

import torch
from torch import Tensor

from regard.core.layout import PAGE_SIZES
from regard.errors import UserError
from regard.inputs import PAGE_TYPES, check_pages
from regard.run import native
from regard.run.native.views import Views, unit_stride


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
    if dtype not in PAGE_TYPES:
        raise UserError(f"pages hold float32, bfloat16 or float16, got {dtype}")
    if page_size not in PAGE_SIZES:
        raise UserError(f"a page holds one of {PAGE_SIZES} tokens, got {page_size}")
    keys = torch.empty((num_pages, groups, key_width, page_size), dtype=dtype, device=device)
    values = torch.empty((num_pages, groups, page_size, value_width), dtype=dtype, device=device)
    if keys.device.type == "cpu" and native.available():
        for pages in (keys, values):
            Views().native.advise_huge(pages.data_ptr(), pages.numel() * pages.element_size())
    return keys, values


def write_pages(k: Tensor, v: Tensor, slots: Tensor, key_pages: Tensor, value_pages: Tensor) -> None:
    """Put tokens into pages, in place, rounded to their type. k [T,G,Dk], v [T,G,Dv]; slots int64 [T]: page ·
    page_size + the token's slot in it."""
    check_pages(key_pages, value_pages)
    capacity = key_pages.shape[0] * key_pages.shape[3]
    if slots.numel() and not 0 <= int(slots.min()) <= int(slots.max()) < capacity:
        raise UserError(f"slots must lie in 0 … {capacity - 1}, got {int(slots.min())} … {int(slots.max())}")
    for name, x, pages, width in (("k", k, key_pages, 2), ("v", v, value_pages, 3)):
        if x.shape != (slots.shape[0], pages.shape[1], pages.shape[width]):
            expected = [slots.shape[0], pages.shape[1], pages.shape[width]]
            raise UserError(f"{name} must be {expected} like its pages, got {list(x.shape)}")
    if key_pages.device.type != "cpu" or not native.available():
        page, slot = slots // key_pages.shape[3], slots % key_pages.shape[3]
        key_pages[page, :, :, slot], value_pages[page, :, slot] = k.to(key_pages.dtype), v.to(key_pages.dtype)
        return
    views = Views()
    tokens = [views.view(unit_stride(x.detach().to(key_pages.dtype))) for x in (k, v)]
    at = views.view(slots.to(torch.int64))
    views.native.write_pages(*tokens, at, views.view(key_pages), views.view(value_pages))
