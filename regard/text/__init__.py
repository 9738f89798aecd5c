"""The text form of attention: "causal & window(1024) | sinks(4)", "alibi & causal", "entmax(1.5)". Parsed, never run.

    expression := term ("|" term)*          masks joined by or
    term       := factor ("&" factor)*      masks joined by and; parts and masks put together into one mechanism
    factor     := "~" factor | "(" expression ")" | name ["(" arguments ")"]
    arguments  := [name "="] (number | True | False | None), separated by commas

A name is a mask, a part (a score, a normaliser, a prepare, an adjust) or a mechanism of the catalogue. What is not said
is standard: scaled dot product, no mask, softmax, weighted sum. What holds tensors is built in Python.
"""

from __future__ import annotations

from regard.mechanism import Mechanism, single
from regard.parts.masks import Combinable
from regard.protocol import Attention
from regard.text.meaning import Draft, from_catalogue, value_of
from regard.text.reader import Call, Reader, TextError
from regard.text.vocabulary import MASKS, PARTS
from regard.text.writing import unparse
from regard.zoo import CATALOGUE


def parse(text: str) -> Attention:
    """The attention that a text says. Raises TextError, which points at the place."""
    reader = Reader(text)
    tree = reader.expression()
    if reader.token[0] != "end":
        raise reader.error(f"expected & or | or the end, found {reader.token[1]!r}")
    if isinstance(tree, Call) and tree.name in CATALOGUE:
        return from_catalogue(tree, text)
    found = value_of(tree, text, alone=True)
    if isinstance(found, Draft):
        return found.mechanism(text)
    if isinstance(found, Combinable):
        return Draft(tree, mask=found).mechanism(text)
    return found


def mechanism(given: Attention | str) -> Mechanism:
    """A Mechanism as it is, or what its text says; raises where that is a recurrence or a composite."""
    return single(parse(given) if isinstance(given, str) else given, "one mechanism is asked for")


__all__ = ["MASKS", "PARTS", "TextError", "mechanism", "parse", "unparse"]
