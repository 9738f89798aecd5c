"""Words and numbers as pictures show them: token text made safe to look at, short numbers."""

from __future__ import annotations

import math
import unicodedata

_KEPT_FORMAT = "\u200c\u200d"  # joiners: parts of Persian words and of emoji
_SPELLED = {"\n": "↵", "\t": "⇥", "\x7f": "⟨DEL⟩"}
_CONTROLS = {0: "NUL", 7: "BEL", 8: "BS", 11: "VT", 12: "FF", 13: "CR", 27: "ESC"}


def visible(text: str) -> str:
    """Token text with every control, bidirectional-override, invisible or broken character spelled out.

    What comes back holds no character that moves a cursor, reorders a line, hides, or fails to encode.
    """
    if not text:
        return "∅"
    return "".join(_spelled(c) for c in text)


def _spelled(character: str) -> str:
    if character in _SPELLED:
        return _SPELLED[character]
    code = ord(character)
    if code < 0x20:
        return f"⟨{_CONTROLS.get(code, f'U+{code:04X}')}⟩"
    kind = unicodedata.category(character)
    hidden = kind in ("Cc", "Cs", "Zl", "Zp") or (kind == "Cf" and character not in _KEPT_FORMAT)
    return f"⟨U+{code:04X}⟩" if hidden else character


def tag(text: str, width: int | None = None) -> str:
    """A visible token as an axis label: without the space before it, blanks as ␣, at most `width` characters."""
    short = text.strip(" ") or "␣" * min(len(text), 3) or "∅"
    return short if width is None or len(short) <= width else short[: max(1, width - 1)] + "…"


def number(value: float) -> str:
    """Three significant digits, short: 0.623, 12.4, 4.1e-05, 1.2e+06."""
    size = abs(value)
    if not math.isfinite(value):
        return str(value)
    if size == 0:
        return "0"
    if size < 0.001 or size >= 1e6:
        return f"{value:.1e}"
    digits = max(0, 2 - math.floor(math.log10(size)))
    return f"{value:.{digits}f}"


def two_places(value: float) -> str:
    """At most five characters for a cell: 0.62, 12.4, 340; never a negative zero."""
    size = abs(value)
    if size < 0.005:
        return "0.00"
    return f"{value:.2f}" if size < 9.995 else f"{value:.1f}" if size < 99.95 else f"{value:.0f}"


def plural(count: int, noun: str) -> str:
    """1 head, 2 heads."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
