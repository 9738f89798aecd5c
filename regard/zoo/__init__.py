"""The catalogue: every published mechanism under its standard name, found in the files beside this one.

A new one is a file here that ends in CARDS; nothing lists it.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from importlib import import_module
from pkgutil import iter_modules
from typing import get_args

from regard.errors import UserError
from regard.zoo.card import Card, Family, Sizes


def discovered() -> dict[str, Card]:
    """The cards of every file of this package by name: family by family, in order of publication."""
    modules = [import_module(f"{__name__}.{file.name}") for file in iter_modules(__path__)]
    cards = [card for module in modules for card in getattr(module, "CARDS", ())]
    return {card.name: card for card in sorted(cards, key=_order)}


def _order(card: Card) -> tuple[int, int, str]:
    year = re.search(r"\b(19|20)\d\d\b", card.source)
    return get_args(Family).index(card.family), int(year[0]) if year else 9999, card.name


CATALOGUE: dict[str, Card] = discovered()


def card(name: str) -> Card:
    """The card of a mechanism by its standard name; an unknown one is refused, the closest known one offered."""
    if name not in CATALOGUE:
        close = get_close_matches(name, CATALOGUE, n=1, cutoff=0.5)
        raise UserError(f"no mechanism {name!r}" + (f"; did you mean {close[0]!r}?" if close else ""))
    return CATALOGUE[name]


def families() -> dict[Family, list[Card]]:
    """The cards by family."""
    found: dict[Family, list[Card]] = {}
    for entry in CATALOGUE.values():
        found.setdefault(entry.family, []).append(entry)
    return found


__all__ = ["CATALOGUE", "Card", "Family", "Sizes", "card", "discovered", "families"]
