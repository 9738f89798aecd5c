"""Fonts that can draw a picture's tokens, found among those installed."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

FIRST = "DejaVu Sans"
MISSING = "▯"


def families(texts: Iterable[str]) -> tuple[list[str], set[str]]:
    """Font families that together draw these texts, the default first, and the characters that none can draw."""
    missing = {character for text in texts for character in text} - _covered(FIRST)
    found = [FIRST]
    if missing:
        for family in _installed():
            helps = missing & _covered(family)
            if helps:
                found.append(family)
                missing -= helps
            if not missing:
                break
    return found, missing


def drawable(text: str, missing: set[str]) -> str:
    """The text with a box for each character that no font can draw."""
    return "".join(MISSING if character in missing else character for character in text) if missing else text


@lru_cache(maxsize=1)
def _installed() -> tuple[str, ...]:
    from matplotlib.font_manager import fontManager

    names = {font.name for font in fontManager.ttflist if font.style == "normal"}
    unfit = ("STIX", "cm", "DejaVu", "Last Resort")
    return tuple(sorted(name for name in names if "Emoji" not in name and not name.startswith(unfit)))


@lru_cache(maxsize=256)
def _covered(family: str) -> frozenset[str]:
    from matplotlib.font_manager import FontProperties, findfont, get_font

    try:
        font = get_font(findfont(FontProperties(family=[family]), fallback_to_default=False))
        return frozenset(map(chr, font.get_charmap()))
    except (OSError, RuntimeError, ValueError):
        return frozenset()
