"""torch.nn.MultiheadAttention's masks in regard's terms: valid keys, allowed pairs, numbers added to scores."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from regard.core import ranges
from regard.core.ranges import Ranges
from regard.errors import UserError
from regard.parts.scores import widened

LOWEST = torch.finfo(torch.float32).min / 4


@dataclass(frozen=True, eq=False)
class Masks:
    """valid: bool [N,S + added] or None; allowed: Ranges or None; biases: [N or 1,heads or 1,L or 1,S + added] each."""

    valid: Tensor | None
    allowed: Ranges | None
    biases: tuple[Tensor, ...]


def masks_of(padding: Tensor | None, attn_mask: Tensor | None, shape: tuple[int, int, int, int], added: int) -> Masks:
    """Both masks of a call, for keys with `added` more at the end, which everyone sees. shape: (N, heads, L, S).

    padding [N,S], attn_mask [L,S] or [N·heads,L,S]: bool, True = left out, or float, added to scores; -inf in a float
    mask leaves a pair out, and other numbers are kept finite, so that a row of finfo.min is uniform, as torch's.
    """
    batch, heads, num_queries, num_keys = shape
    valid, allowed, biases = None, None, []
    if padding is not None:
        _check("key_padding_mask", padding, (batch, num_keys))
        if padding.dtype == torch.bool:
            valid = pad(~padding, (0, added), value=True)
        else:
            biases.append(pad(padding, (0, added))[:, None, None])
    if attn_mask is not None:
        of_pairs = (num_queries, num_keys) if attn_mask.ndim == 2 else (batch * heads, num_queries, num_keys)
        _check("attn_mask", attn_mask, of_pairs)
        mask = attn_mask[None, None] if attn_mask.ndim == 2 else attn_mask.unflatten(0, (batch, heads))
        mask = pad(mask, (0, added), value=0)
        if mask.dtype == torch.bool:
            allowed = ranges.from_dense(~mask, max_runs=None)
        else:
            biases.append(mask)
    for number, bias in enumerate(biases):
        shut = bias == -float("inf")
        biases[number] = _finite(bias.masked_fill(shut, 0.0))
        if bool(shut.any()):
            seen = ~shut.expand(-1, -1, num_queries, -1)
            seen = seen if allowed is None else seen & allowed.dense()
            allowed = ranges.from_dense(seen, max_runs=None)
    return Masks(valid, allowed, tuple(biases))


def _finite(bias: Tensor) -> Tensor:
    """At least float32, and not so low that the sum of two masks, or a change of the exponential's base, overflows."""
    return widened(bias).clamp(min=LOWEST)


def _check(name: str, mask: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(mask.shape) != shape:
        raise UserError(f"{name} must be {list(shape)} for these inputs, got {list(mask.shape)}")
    if mask.dtype != torch.bool and not mask.is_floating_point():
        raise UserError(f"{name} is bool (True: left out) or float (added to scores), got {mask.dtype}")
