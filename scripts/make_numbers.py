"""Write the text that the embedded translator is trained on: dates and numbers in French and German words, in English.

Everything is generated, by Babel (dates as each language writes them) and num2words (numbers in words):

    python scripts/make_numbers.py out/numbers --pairs 60000 --seed 1

makes train.tsv, valid.tsv and test.tsv of source, tab, target. No pair of one file stands in another. The training text
is drawn first, so that what there is little of (ordinals, small numbers) is in it.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path

from babel.dates import format_date
from num2words import num2words

FIRST, DAYS = date(1900, 1, 1), 73049  # to the end of 2099
SOURCES = ("fr", "de")
PATTERNS = {
    "fr": ("d MMMM y", "EEEE d MMMM y", "MMMM y", "EEEE d MMMM", "d MMMM"),
    "de": ("d. MMMM y", "EEEE, d. MMMM y", "MMMM y", "EEEE, d. MMMM", "d. MMMM"),
    "en": ("MMMM d, y", "EEEE, MMMM d, y", "MMMM y", "EEEE, MMMM d", "MMMM d"),
}


def written_date(draw: random.Random, language: str) -> tuple[str, str]:
    """A date in one of five forms: "mardi 3 mai 1988", "Tuesday, May 3, 1988"."""
    day, form = FIRST + timedelta(draw.randrange(DAYS)), draw.randrange(5)
    return tuple(format_date(day, PATTERNS[name][form], locale=name) for name in (language, "en"))  # type: ignore


def spoken_date(draw: random.Random, language: str) -> tuple[str, str]:
    """A date whose numbers are words: "le trois mai", "the third of May"."""
    day = FIRST + timedelta(draw.randrange(DAYS))
    month, english_month = (format_date(day, "MMMM", locale=name) for name in (language, "en"))
    ordinal = num2words(day.day, lang="en", to="ordinal")
    if language == "fr":
        number = "premier" if day.day == 1 else num2words(day.day, lang="fr")
        return f"le {number} {month}", f"the {ordinal} of {english_month}"
    return f"der {num2words(day.day, lang='de', to='ordinal')} {month}", f"the {ordinal} of {english_month}"


def cardinal(draw: random.Random, language: str) -> tuple[str, str]:
    """A number below a million, small ones as often as large ones: "quatre-vingt-douze", "ninety-two"."""
    number = draw.randrange(10 ** draw.randint(1, 6))
    return num2words(number, lang=language), num2words(number, lang="en")


def ordinal(draw: random.Random, language: str) -> tuple[str, str]:
    """An ordinal below a hundred."""
    number = draw.randint(1, 99)
    return num2words(number, lang=language, to="ordinal"), num2words(number, lang="en", to="ordinal")


KINDS: tuple[Callable[[random.Random, str], tuple[str, str]], ...] = (
    written_date,
    written_date,
    spoken_date,
    cardinal,
    cardinal,
    cardinal,
    ordinal,
)


def pairs(seed: int) -> Iterator[tuple[str, str]]:
    """Different pairs without end, languages and kinds at random."""
    draw, seen = random.Random(seed), set()
    while True:
        made = draw.choice(KINDS)(draw, draw.choice(SOURCES))
        if made not in seen:
            seen.add(made)
            yield made


def main() -> None:
    parser = argparse.ArgumentParser(description="Text for the embedded translator.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--pairs", type=int, default=60000)
    parser.add_argument("--held-out", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    stream = pairs(given.seed)
    for name, count in (("train", given.pairs), ("test", given.held_out), ("valid", given.held_out)):
        lines = ["\t".join(next(stream)) + "\n" for _ in range(count)]
        (given.out / f"{name}.tsv").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
