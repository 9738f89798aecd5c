"""Finding a mechanism by what people remember of it: another name, an author, a paper, a family, a model."""

from __future__ import annotations

import re
import unicodedata

from regard.explain.uses import USES
from regard.zoo import CATALOGUE, Card


def found(wanted: str) -> list[Card]:
    """The cards that a few words could mean, the likeliest first; none where nothing matches.

    A name; else those that are called so; else those whose source, models or line hold every word.
    """
    words = _words(wanted)
    if not words:
        return []
    name = "_".join(words)
    if name in CATALOGUE:
        return [CATALOGUE[name]]
    ranked = [(_rank(card, words), nth, card) for nth, card in enumerate(CATALOGUE.values())]
    best = sorted((rank, nth) for rank, nth, _ in ranked if rank is not None)
    if best and best[0][0] == 0:  # the very words are another name
        best = [each for each in best if each[0] == 0]
    return [ranked[nth][2] for _, nth in best]


def _rank(card: Card, words: list[str]) -> int | None:
    """0 for another name, 1 for authors and titles, 2 for models, 3 for what its line and family say."""
    use = USES.get(card.name)
    if use and " ".join(words) in [" ".join(_words(other)) for other in use.also]:
        return 0
    models = use.models if use else ""
    for rank, text in enumerate((card.source, f"{models} {card.name}", f"{card.line} {card.family} {card.attends}"), 1):
        if set(words) <= set(_words(text)):
            return rank
    return None


def _words(text: str) -> list[str]:
    """Lower-case words without accents: "Nyströmformer" is found by nystromformer."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    return re.findall(r"[a-z0-9]+", "".join(c for c in plain if not unicodedata.combining(c)))
