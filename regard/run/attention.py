"""The functions most people need: attention by any mechanism, its exact weights on any rectangle, and its scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from regard import core
from regard.core import ranges
from regard.core.layout import DENSE, Layout
from regard.core.ranges import Ranges
from regard.errors import UserError
from regard.inputs import Inputs, inputs, packed_inputs
from regard.lower import reusable
from regard.mechanism import Mechanism
from regard.parts.scores import Table
from regard.protocol import Attention
from regard.run import choose, compose, operator
from regard.run.arguments import accepted, is_followed, is_ordinary
from regard.run.backend import Choice

KEPT = 32
_kept: dict[tuple[object, ...], tuple[Attention, Choice]] = {}  # calls that were checked, the oldest first


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mechanism: Attention | str = "scaled_dot",
    *,
    mask: Tensor | None = None,
    query_positions: Tensor | None = None,
    key_positions: Tensor | None = None,
    key_valid: Tensor | None = None,
    per_query: Mapping[str, Tensor] | None = None,
    per_key: Mapping[str, Tensor] | None = None,
    layout: Layout = DENSE,
    backend: str = "auto",
) -> Tensor:
    """Attention by a mechanism or its text form, such as "causal & window(1024) | sinks(4)".

    q [B,H,Tq,Dk], k [B,G,Tk,Dk], v [B,G,Tk,Dv], H a multiple of G; result [B,H,Tq,Dv] in q's type. Positions default
    to 0 … n-1; where queries and keys differ in number they must be given if the mechanism reads them. key_valid:
    bool [B,Tk], keys that are never read where False. mask: [Tq,Tk] or [B or 1, H or 1, Tq, Tk], bool (True: may be
    attended) or floating-point (added to the scores), beside the mechanism's own. per_query, per_key: named extras,
    such as a recurrence's gates, [B, heads, tokens, …]. layout: in a packed one (core/layout.py) q is [queries, H, Dk],
    k and v [keys, G, D] or the pages, and so is the result. Differentiable. backend: "auto" takes the fastest that
    computes the same thing. Raises UserError on what does not fit and where a named backend cannot.
    """
    bare = mask is query_positions is key_positions is key_valid is per_query is per_key is None and layout is DENSE
    key = _key(q, k, v, mechanism, backend) if bare else None
    if key is not None and (checked := _kept.get(key)) is not None:
        return _computed(checked[1].over(q, k, v), q)
    q, k, values = accepted(q, k, v)
    assert values is not None
    if layout is not DENSE:
        if not (mask is query_positions is key_positions is key_valid is None):
            raise UserError("a packed layout says positions and what is valid; state a mask in the mechanism")
        x = packed_inputs(q, k, values, layout, per_query=per_query, per_key=per_key)
        return compose.attend(compose.resolved(mechanism), x, backend)[0].transpose(0, 1)
    tensors: dict[str, Any] = {
        "q": q,
        "k": k,
        "v": values,
        "query_positions": query_positions,
        "key_positions": key_positions,
        "key_valid": key_valid,
        "per_query": per_query,
        "per_key": per_key,
    }
    if not is_ordinary(q, k, values):
        return operator.attend(mechanism, tensors | {"mask": mask}, backend)
    meaning, x = compose.resolved(mechanism), inputs(**tensors)
    if mask is not None:
        meaning, x = masked(meaning, x, mask)
    if key is None or not isinstance(meaning, Mechanism) or not reusable(meaning) or meaning.tensors():
        return compose.attend(meaning, x, backend)
    choice = choose.choose(meaning, x, backend)
    _keep(key, meaning, choice)
    return _computed(choice, q)


def weights(
    q: Tensor,
    k: Tensor,
    mechanism: Attention | str = "scaled_dot",
    rows: slice | int = slice(None),
    keys: slice | int = slice(None),
    *,
    mask: Tensor | None = None,
    query_positions: Tensor | None = None,
    key_positions: Tensor | None = None,
    key_valid: Tensor | None = None,
    per_query: Mapping[str, Tensor] | None = None,
    per_key: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """The exact weights [B,H,rows,keys] of any rectangle; memory grows with the rectangle, not with Tq · Tk.

    rows, keys: a slice, or an index for one row or key (its dimension stays). Each row is normalised over all of its
    keys, whatever part of it is asked for. mask and the rest are as in `attention`. Differentiable in q and k only
    through `attention`; this returns plain numbers.
    """
    tensors = (query_positions, key_positions, key_valid, per_query, per_key)
    meaning, x = _without_values(q, k, mechanism, mask, tensors)
    return compose.weights(meaning, x, _part(rows, x.q.shape[2], "rows"), _part(keys, x.k.shape[2], "keys"))


def scores(
    q: Tensor,
    k: Tensor,
    mechanism: Attention | str = "scaled_dot",
    rows: slice | int = slice(None),
    keys: slice | int = slice(None),
    *,
    terms: int | None = None,
    hide: bool = True,
    mask: Tensor | None = None,
    query_positions: Tensor | None = None,
    key_positions: Tensor | None = None,
    key_valid: Tensor | None = None,
    per_query: Mapping[str, Tensor] | None = None,
    per_key: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """The raw scores [B,H,rows,keys] that a mechanism normalises, differentiable; memory grows with the rectangle.

    terms: how many of the mechanism's score terms to apply, in order; None for all (1 is the dot product, before a
    bias or a cap). hide: put -inf where a query may not see a key. The rest is as in `weights`.
    """
    from regard.run import reference

    tensors = (query_positions, key_positions, key_valid, per_query, per_key)
    meaning, x = _without_values(q, k, mechanism, mask, tensors)
    if not isinstance(meaning, Mechanism):
        raise UserError(f"{meaning.name} has no single matrix of scores; ask for those of its parts")
    if terms is not None and not 1 <= terms <= len(meaning.score):
        raise UserError(f"{meaning.name} has {len(meaning.score)} score terms; terms={terms} asks for others")
    part = meaning.replace(score=meaning.score[:terms])
    return reference.scores_of(part, x, _part(rows, x.q.shape[2], "rows"), _part(keys, x.k.shape[2], "keys"), hide)


def _without_values(
    q: Tensor, k: Tensor, mechanism: Attention | str, mask: Tensor | None, tensors: tuple[Any, ...]
) -> tuple[Attention, Inputs]:
    """The attention and the inputs of a question about weights. tensors: positions, valid keys and extras, in order."""
    q, k, _ = accepted(q, k, None)
    names = ("query_positions", "key_positions", "key_valid", "per_query", "per_key")
    meaning, x = compose.resolved(mechanism), inputs(q, k, **dict(zip(names, tensors, strict=True)))
    return (meaning, x) if mask is None else masked(meaning, x, mask)


def masked(meaning: Attention, x: Inputs, mask: Tensor) -> tuple[Attention, Inputs]:
    """The same under a dense mask: what it excludes as ranges of x, what it adds as a score term of the mechanism."""
    wanted = (*x.q.shape[:3], x.k.shape[2])
    mask = mask[None, None] if mask.ndim == 2 else mask
    fits = mask.ndim == 4 and all(m in (1, n) for m, n in zip(mask.shape[:2], wanted[:2], strict=True))
    if not fits or mask.shape[2:] != wanted[2:]:
        raise UserError(
            f"mask must be [{wanted[2]}, {wanted[3]}] or [batch or 1, heads or 1, {wanted[2]}, {wanted[3]}], "
            f"got {list(mask.shape)}"
        )
    if mask.dtype == torch.bool:
        return meaning, _also(x, ranges.from_dense(mask, max_runs=None))
    if not mask.is_floating_point():
        raise UserError(f"mask is bool (True: may be attended) or floating-point (added to scores), got {mask.dtype}")
    if not isinstance(meaning, Mechanism):
        raise UserError(f"a floating-point mask adds to scores, and {meaning.name} has none; give a bool mask")
    shown = mask > -torch.inf
    if not bool(shown.all()):
        x, mask = _also(x, ranges.from_dense(shown, max_runs=None)), mask.masked_fill(~shown, 0.0)
    return meaning.replace(score=(*meaning.score, Table(mask))), x


def _also(x: Inputs, seen: Ranges) -> Inputs:
    return replace(x, allowed=seen if x.allowed is None else x.allowed & seen)


def _part(part: slice | int, length: int, name: str) -> slice:
    """An index as a slice of one."""
    if isinstance(part, slice):
        return part
    if not -length <= part < length:
        raise UserError(f"{name}={part} asks for one of {length}; give {-length} to {length - 1}")
    return slice(part % length, part % length + 1)


# ---- calls that were checked once -----------------------------------------------------------------------------------


def _key(q: Tensor, k: Tensor, v: Tensor, mechanism: Attention | str, backend: str) -> tuple[object, ...] | None:
    """What makes two calls the same but for their numbers; None where a call must be looked at anew."""
    if not (isinstance(q, Tensor) and is_ordinary(q, k, v)) or is_followed(q):
        return None
    name = mechanism if isinstance(mechanism, str) else id(mechanism)
    needs_grad = torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)
    return q.shape, k.shape, v.shape, q.dtype, k.dtype, v.dtype, q.device, k.device, name, backend, needs_grad


def _keep(key: tuple[object, ...], meaning: Attention, choice: Choice) -> None:
    """Remember a call that was checked, without its tensors; a mechanism is kept too, so that its id stays its own."""
    while len(_kept) >= KEPT:
        _kept.pop(next(iter(_kept)), None)
    call = choice.call
    if isinstance(call, core.Plan):
        nothing = call.q.detach().new_empty(0)
        _kept[key] = meaning, choice.over(nothing, nothing, nothing)


def _computed(choice: Choice, q: Tensor) -> Tensor:
    out = choice.output()
    return out if out.dtype == q.dtype else out.to(q.dtype)
