"""Token text made safe to look at, and short numbers."""

import unicodedata

import pytest

from regard.view.words import number, tag, two_places, visible
from tests.view.traces import HOSTILE


@pytest.mark.parametrize("text", HOSTILE)
def test_visible_text_has_no_character_that_moves_hides_or_breaks(text: str) -> None:
    shown = visible(text)
    assert shown
    assert not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in shown)
    assert "\u202e" not in shown
    shown.encode("utf-8")


def test_plain_text_stays_as_it_is() -> None:
    for text in (" fluffy", "▁Hund", "##ing", "你好", "🦊", "שלום", "a<b>&\"'$x$"):
        assert visible(text) == text


def test_every_control_character_is_spelled_out() -> None:
    for code in [*range(0x20), 0x7F, *range(0x80, 0xA0), 0xFEFF, 0x200B, 0x2028]:
        shown = visible(chr(code))
        assert shown != chr(code) and len(shown) >= 1, hex(code)
    assert visible("\x1b[31m") == "⟨ESC⟩[31m"


def test_a_tag_drops_the_space_before_a_word_and_shows_blanks() -> None:
    assert tag(" fluffy") == "fluffy"
    assert tag("  ") == "␣␣"
    assert tag("") == "∅"
    assert tag("abcdefgh", 5) == "abcd…"


def test_numbers_have_three_digits() -> None:
    shown = [number(x) for x in (0, 0.6231, 0.0412, 12.43, 340.2, 4.1e-5, 1.0, 2.5e6)]
    assert shown == ["0", "0.623", "0.0412", "12.4", "340", "4.1e-05", "1.00", "2.5e+06"]
    assert two_places(-0.001) == "0.00"
