"""Lowering: a mechanism restated in the closed core, its mask as ranges; or which part cannot be restated, and why."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from regard import core
from regard.core import ranges
from regard.core.layout import Packed, Paged
from regard.core.ranges import Ranges
from regard.inputs import Inputs, require_positions
from regard.mechanism import Mask, Mechanism


def visible(mechanism: Mechanism, x: Inputs) -> Ranges:
    """What each row may attend, exactly: the mask's ranges, the mask given as data and the valid keys, all ANDed.

    In a packed layout ranges are in each document's own key slots. Raises TooManyRuns when a row falls into more
    intervals than a table may hold.
    """
    if isinstance(x.layout, Packed):
        own = ranges_of(mechanism.mask, _over_own_keys(x, x.layout))
        seen = x.layout.every_key if own.is_full() else own & x.layout.every_key
    else:
        seen = ranges_of(mechanism.mask, x)
    if x.allowed is not None:
        seen = x.allowed if seen.is_full() else seen & x.allowed
    if x.key_valid is not None and not bool(x.key_valid.all()):
        seen = seen & ranges.from_key_flags(x.key_valid, seen.num_queries)
    return seen


def _over_own_keys(x: Inputs, layout: Packed) -> Inputs:
    """What a mask may read of packed inputs: every query beside the keys of one document, the longest.

    All documents count their keys from 0, so a mask of positions says for the longest what it says for each.
    """
    length = layout.longest_key
    nothing = x.q.new_empty(0)
    return x.replace(
        q=nothing.expand(1, x.q.shape[1], x.q.shape[2], 0),
        k=nothing.expand(1, x.k.shape[1], length, 0),
        v=None,
        key_positions=torch.arange(length, device=x.q.device)[None],
        per_query={},
        per_key={},
        packed=None,
    )


def ranges_of(mask: Mask, x: Inputs) -> Ranges:
    """A mask's ranges: its own statement where it has one, else encoded from the predicate."""
    stated = getattr(mask, "ranges", None)
    own = None if stated is None else stated(x)
    return encode_mask(mask, x) if own is None else own


def encode_mask(mask: Mask, x: Inputs) -> Ranges:
    """Ranges of any mask predicate, by evaluating it in strips."""
    if reads_positions(mask):
        require_positions(x, f"the mask {mask}")
    num_queries, num_keys = x.q.shape[2], x.k.shape[2]

    def strip(begin: int, end: int) -> Tensor:
        where = x.tile(slice(begin, end), slice(0, num_keys)).where
        seen = mask(where.batch, where.head, where.query, where.key)
        shape = (*seen.shape[:2], end - begin, num_keys) if seen.ndim == 4 else (1, 1, end - begin, num_keys)
        return seen.expand(shape)

    return ranges.encode(strip, num_queries, num_keys, x.q.shape[0] * x.q.shape[1])


def reads_positions(mask: Mask) -> bool:
    """Whether a mask needs to know the positions of queries and keys."""
    return bool(getattr(mask, "reads_positions", True))


def lower(mechanism: Mechanism, x: Inputs) -> core.Plan | core.Refusal:
    """Restate a mechanism, for prepared inputs, in core records; or say which part cannot and why."""
    if mechanism.adjust:
        return core.Refusal(type(mechanism.adjust[0]).__name__, "changes weights after the normaliser")
    if isinstance(x.layout, Paged) and not reusable(mechanism):
        return core.Refusal(mechanism.name, "reads queries or keys before they are scored, and these lie in pages")
    terms: list[core.Term] = []
    for part in mechanism.score:
        records = _restated(part, x)
        if records is None:
            return core.Refusal(type(part).__name__, "is a score with no form in the core vocabulary")
        terms.extend(records)
    if not terms or not isinstance(terms[0], core.Dot):
        return core.Refusal(mechanism.name, "does not begin with a dot product")
    softmax = _restated(mechanism.normaliser, x)
    if not isinstance(softmax, core.Softmax):
        return core.Refusal(type(mechanism.normaliser).__name__, "is not a softmax")
    shifting = [type(part).__name__ for part in mechanism.score if getattr(part, "core_omits_row_constant", False)]
    if shifting and softmax.sink is not None:
        return core.Refusal(shifting[0], "shifts whole rows in its core form, which a softmax with a sink would notice")
    if mechanism.mix is not None and not isinstance(_restated(mechanism.mix, x), core.WeightedSum):
        return core.Refusal(type(mechanism.mix).__name__, "is not a plain weighted sum")
    try:
        seen = visible(mechanism, x)
    except ranges.TooManyRuns as error:
        return core.Refusal(type(mechanism.mask).__name__, str(error))
    if seen.start.shape[3] > ranges.MAX_RUNS:
        return core.Refusal(mechanism.name, f"selects {seen.start.shape[3]} intervals of keys for a row")
    v = x.v if mechanism.mix is not None else None
    return core.Plan(x.q, x.k, v, x.query_positions, x.key_positions, tuple(terms), seen, softmax, x.layout)


def _restated(part: Any, x: Inputs) -> Any:
    """A part in core records, None where it has no such form."""
    core_form = getattr(part, "core", None)
    return None if core_form is None else core_form(x)


def reusable(mechanism: Mechanism) -> bool:
    """Whether a plan of this mechanism holds for other tensors of the same shapes and positions.

    A part says with `depends_on_shapes_alone = True` that its core form does not read queries, keys or values. Masks
    never do. Prepares do: they change them.
    """
    parts = (*mechanism.score, mechanism.normaliser, *([] if mechanism.mix is None else [mechanism.mix]))
    return not mechanism.prepare and all(getattr(part, "depends_on_shapes_alone", False) for part in parts)
