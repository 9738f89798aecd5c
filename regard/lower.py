"""Lowering: a mechanism restated in the closed core, its mask as ranges; or which part cannot be restated, and why."""

from __future__ import annotations

from torch import Tensor

from regard import core
from regard.core import ranges
from regard.core.ranges import Ranges
from regard.inputs import Inputs, require_positions
from regard.mechanism import HasCore, HasRanges, Mask, Mechanism


def visible(mechanism: Mechanism, x: Inputs) -> Ranges:
    """What each row may attend, exactly: the mask's ranges, the mask given as data and the valid keys, all ANDed.

    Raises TooManyRuns when a row falls into more intervals than a table may hold.
    """
    seen = ranges_of(mechanism.mask, x)
    if x.allowed is not None:
        seen = x.allowed if seen.is_full() else seen & x.allowed
    if x.key_valid is not None and not bool(x.key_valid.all()):
        seen = seen & ranges.from_key_flags(x.key_valid, seen.num_queries)
    return seen


def ranges_of(mask: Mask, x: Inputs) -> Ranges:
    """A mask's ranges: its own statement where it has one, else encoded from the predicate."""
    found = mask.ranges(x) if isinstance(mask, HasRanges) else None
    return encode_mask(mask, x) if found is None else found


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
    terms: list[core.Term] = []
    for part in mechanism.score:
        found = part.core(x) if isinstance(part, HasCore) else None
        if found is None:
            return core.Refusal(type(part).__name__, "is a score with no form in the core vocabulary")
        terms.extend(found)
    if not terms or not isinstance(terms[0], core.Dot):
        return core.Refusal(mechanism.name, "does not begin with a dot product")
    softmax = mechanism.normaliser.core(x) if isinstance(mechanism.normaliser, HasCore) else None
    if not isinstance(softmax, core.Softmax):
        return core.Refusal(type(mechanism.normaliser).__name__, "is not a softmax")
    shifting = [type(part).__name__ for part in mechanism.score if getattr(part, "core_omits_row_constant", False)]
    if shifting and softmax.sink is not None:
        return core.Refusal(shifting[0], "shifts whole rows in its core form, which a softmax with a sink would notice")
    mix = mechanism.mix.core(x) if isinstance(mechanism.mix, HasCore) else None
    if mechanism.mix is not None and not isinstance(mix, core.WeightedSum):
        return core.Refusal(type(mechanism.mix).__name__, "is not a plain weighted sum")
    try:
        seen = visible(mechanism, x)
    except ranges.TooManyRuns as error:
        return core.Refusal(type(mechanism.mask).__name__, str(error))
    if seen.start.shape[3] > ranges.MAX_RUNS:
        return core.Refusal(mechanism.name, f"selects {seen.start.shape[3]} intervals of keys for a row")
    return core.Plan(
        x.q,
        x.k,
        x.v if mechanism.mix is not None else None,
        x.query_positions,
        x.key_positions,
        tuple(terms),
        seen,
        softmax,
    )
