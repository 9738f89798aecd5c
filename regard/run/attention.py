"""The two functions most people need: attention by any mechanism, and the exact weights of any rectangle."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from regard.inputs import inputs
from regard.protocol import Attention
from regard.run import compose


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mechanism: Attention | str = "scaled_dot",
    *,
    query_positions: Tensor | None = None,
    key_positions: Tensor | None = None,
    key_valid: Tensor | None = None,
    per_query: Mapping[str, Tensor] | None = None,
    per_key: Mapping[str, Tensor] | None = None,
    backend: str = "auto",
) -> Tensor:
    """Attention by a mechanism or its text form, such as "causal & window(1024) | sinks(4)".

    q [B,H,Tq,Dk], k [B,G,Tk,Dk], v [B,G,Tk,Dv], H a multiple of G; result [B,H,Tq,Dv] in q's type. Positions default
    to 0 … n-1; where queries and keys differ in number they must be given if the mechanism reads them. key_valid:
    bool [B,Tk], keys that are never read where False. Differentiable. backend: "auto" takes the fastest that computes
    the same thing. per_query, per_key: named extras, such as a recurrence's gates, [B, heads, tokens, …]. Raises
    ValueError on shapes that do not fit and where a named backend cannot.
    """
    x = inputs(
        q,
        k,
        v,
        query_positions=query_positions,
        key_positions=key_positions,
        key_valid=key_valid,
        per_query=per_query,
        per_key=per_key,
    )
    return compose.attend(compose.resolved(mechanism), x, backend)


def weights(
    q: Tensor,
    k: Tensor,
    mechanism: Attention | str = "scaled_dot",
    rows: slice = slice(None),
    keys: slice = slice(None),
    *,
    query_positions: Tensor | None = None,
    key_positions: Tensor | None = None,
    key_valid: Tensor | None = None,
    per_query: Mapping[str, Tensor] | None = None,
    per_key: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """The exact weights [B,H,rows,keys] of any rectangle; memory grows with the rectangle, not with Tq · Tk.

    Each row is normalised over all of its keys, whatever part of it is asked for. Differentiable in q and k only
    through `attention`; this returns plain numbers.
    """
    x = inputs(
        q,
        k,
        query_positions=query_positions,
        key_positions=key_positions,
        key_valid=key_valid,
        per_query=per_query,
        per_key=per_key,
    )
    return compose.weights(compose.resolved(mechanism), x, rows, keys)
