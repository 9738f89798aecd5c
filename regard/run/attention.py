"""The two functions most people need: attention by any mechanism, and the exact weights of any rectangle."""

from __future__ import annotations

import torch
from torch import Tensor

from regard.mechanism import Inputs, Mechanism, inputs
from regard.run import strips
from regard.run.choose import attend


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mechanism: Mechanism | str = "scaled_dot",
    *,
    query_positions: Tensor | None = None,
    key_positions: Tensor | None = None,
    key_valid: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """Attention by a mechanism or its text form, such as "causal & window(1024) | sinks(4)".

    q [B,H,Tq,Dk], k [B,G,Tk,Dk], v [B,G,Tk,Dv], H a multiple of G; result [B,H,Tq,Dv] in q's type. Positions default
    to 0 … n-1; where queries and keys differ in number they must be given if the mechanism reads them. key_valid:
    bool [B,Tk], keys that are never read where False. Differentiable. backend: "auto" takes the fastest that computes
    the same thing. Raises ValueError on shapes that do not fit and where a named backend cannot.
    """
    x = inputs(q, k, v, query_positions=query_positions, key_positions=key_positions, key_valid=key_valid)
    return attend(parsed(mechanism), x, backend)


def weights(
    q: Tensor,
    k: Tensor,
    mechanism: Mechanism | str = "scaled_dot",
    rows: slice = slice(None),
    keys: slice = slice(None),
    *,
    query_positions: Tensor | None = None,
    key_positions: Tensor | None = None,
    key_valid: Tensor | None = None,
) -> Tensor:
    """The exact weights [B,H,rows,keys] of any rectangle; memory grows with the rectangle, not with Tq · Tk.

    Each row is normalised over all of its keys, whatever part of it is asked for. Differentiable in q and k only
    through `attention`; this returns plain numbers.
    """
    x = inputs(q, k, query_positions=query_positions, key_positions=key_positions, key_valid=key_valid)
    return rectangle(parsed(mechanism), x, rows, keys)


@torch.no_grad()
def rectangle(mechanism: Mechanism, x: Inputs, rows: slice, keys: slice) -> Tensor:
    """The weights of these query rows on these key slots."""
    first_row, last_row, _ = rows.indices(x.q.shape[2])
    first_key, last_key, _ = keys.indices(x.k.shape[2])
    found: list[Tensor] = []

    def absorb(strip: slice, at: slice, weights: Tensor, _: Tensor | None) -> None:
        cells = weights.new_zeros((*weights.shape[:3], max(0, last_key - first_key)))
        left, right = max(first_key, at.start), min(last_key, at.stop)
        if left < right:
            cells[..., left - first_key : right - first_key] = weights[..., left - at.start : right - at.start]
        found.append(cells)

    strips.attend(mechanism, x, output=False, absorb=absorb, rows=slice(first_row, last_row))
    if not found:
        return x.q.new_zeros((*x.q.shape[:2], 0, max(0, last_key - first_key)))
    return torch.cat(found, 2)


def parsed(mechanism: Mechanism | str) -> Mechanism:
    """A mechanism as it is, or what its text form says."""
    if isinstance(mechanism, str):
        from regard.text import parse

        return parse(mechanism)
    return mechanism
