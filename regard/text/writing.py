"""From a mechanism to the text that says it."""

from __future__ import annotations

from typing import Any

from regard.errors import UserError
from regard.mechanism import Mechanism
from regard.parts import masks
from regard.parts.masks import Or
from regard.parts.mixes import WeightedSum
from regard.protocol import Attention
from regard.zoo import CATALOGUE


def unparse(attention: Attention) -> str:
    """The text that says this mechanism; parse(unparse(m)) computes the same. Raises UserError where there is none."""
    if not isinstance(attention, Mechanism):
        raise UserError(f"{attention.name} is a {type(attention).__name__} and has no text form; build it in Python")
    held = attention.tensors()
    if held:
        raise UserError(f"{attention.name} holds tensors ({', '.join(held)}) and has no text form; build it in Python")
    if type(attention.mix) is not WeightedSum:
        raise UserError(f"{attention.name} does not end in a weighted sum and has no text form; build it in Python")
    base, terms = attention.score[0], attention.score[1:]
    parts: list[Any] = [part for part in (base,) if _written(part) != "scaled_dot"]
    parts += [*terms, *attention.prepare]
    parts += [part for part in (attention.normaliser,) if _written(part) != "softmax"]
    pieces = [_written(part) for part in (*parts, *attention.adjust)]
    if not isinstance(attention.mask, masks.Full):
        seen = _written(attention.mask)
        pieces.append(f"({seen})" if pieces and isinstance(attention.mask, Or) else seen)
    written = " & ".join(pieces) or "scaled_dot"
    return f"{written} & full" if isinstance(attention.mask, masks.Full) and _is_masked_alone(written) else written


def _is_masked_alone(written: str) -> bool:
    """Whether this text alone is a mechanism of the catalogue that has a mask (alibi), so that `full` must be said."""
    card = CATALOGUE.get(written)
    made = card.factory() if card is not None and card.factory is not None else None
    return isinstance(made, Mechanism) and not isinstance(made.mask, masks.Full)


def text_or(made: Mechanism, given: str) -> str:
    """The canonical text, or the given one where a part of the catalogue's has none."""
    try:
        return unparse(made)
    except ValueError:
        return given


def _written(part: Any) -> str:
    if type(part).__str__ is object.__str__:
        raise UserError(f"{type(part).__name__} has no text form; build it in Python")
    return str(part)
