"""The catalogue: every published mechanism, one file each, under its standard name.

A new one is a file beside this one that ends in CARDS, its name in FILES, and a row in tests/matrix.py.
"""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module

from regard.errors import UserError
from regard.zoo.card import Card, Family, Sizes

FILES = (
    "scaled_dot",
    "dot",
    "general",
    "additive",
    "concat",
    "cosine",
    "gaussian",
    "softcap",
    "shaw",
    "transformer_xl",
    "self_attention",
    "shared_heads",
    "latent",
    "external_memory",
    "pointer",
    "visibility",
    "window",
    "longformer",
    "sparse_transformer",
    "selected",
    "nsa",
    "reformer",
    "softmax_variants",
    "pointwise",
    "entmax",
    "hard",
    "adaptive_span",
    "luong_local",
    "spatial",
    "linformer",
    "nystrom",
    "linear",
    "retention",
    "delta",
    "titans",
    "forgetting",
    "trilinear",
    "differential",
    "talking_heads",
    "mixtures",
    "sinusoidal",
    "rotary",
    "alibi",
    "t5",
)

CATALOGUE: dict[str, Card] = {card.name: card for file in FILES for card in import_module(f"regard.zoo.{file}").CARDS}


def card(name: str) -> Card:
    """The card of a mechanism by its standard name; an unknown one is refused, the closest known one offered."""
    if name not in CATALOGUE:
        close = get_close_matches(name, CATALOGUE, n=1, cutoff=0.5)
        raise UserError(f"no mechanism {name!r}" + (f"; did you mean {close[0]!r}?" if close else ""))
    return CATALOGUE[name]


def families() -> dict[Family, list[Card]]:
    """The cards by family, in the catalogue's order."""
    found: dict[Family, list[Card]] = {}
    for entry in CATALOGUE.values():
        found.setdefault(entry.family, []).append(entry)
    return found


__all__ = ["CATALOGUE", "Card", "Family", "Sizes", "card", "families"]
