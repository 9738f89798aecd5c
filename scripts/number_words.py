"""Which words of a French or German number or date say which word of its English: the alignment that is right.

A number is cut where its words say thousands and hundreds; each part of one side stands for the same part of the other.
"""

from __future__ import annotations

import re

MONTHS = (
    "january february march april may june july august september october november december",
    "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
    "januar februar märz april mai juni juli august september oktober november dezember",
)
WEEKDAYS = (
    "monday tuesday wednesday thursday friday saturday sunday",
    "lundi mardi mercredi jeudi vendredi samedi dimanche",
    "montag dienstag mittwoch donnerstag freitag samstag sonntag",
)
NAMES = {word for names in (*MONTHS, *WEEKDAYS) for word in names.split()}
ARTICLES = {"the", "of", "and", "le", "der"}


def parts(words: list[str]) -> dict[str, list[int]]:
    """The words of a number or date by the part that they say: "thousands.hundreds", "ones.below", "digits.15" …"""
    plain = [re.sub(r"[.,]+$", "", word.casefold()) for word in words]
    found: dict[str, list[int]] = {}
    spoken = [i for i, word in enumerate(plain) if word not in NAMES | ARTICLES and not word.isdigit()]
    for i, word in enumerate(plain):
        if word.isdigit():
            found.setdefault(f"digits.{word}", []).append(i)
    cut = next((at for at, i in enumerate(spoken) if plain[i] in ("thousand", "thousandth", "mille", "millième")), None)
    if cut is not None:
        found["thousand"] = [spoken[cut]]
        found |= _below("thousands", spoken[:cut], plain)
        spoken = spoken[cut + 1 :]
    return found | _below("ones", spoken, plain)


def _below(name: str, at: list[int], plain: list[str]) -> dict[str, list[int]]:
    """A number below a thousand: its hundreds and what follows them."""
    cut = next((n for n, i in enumerate(at) if re.match(r"hundred|cent", plain[i])), None)
    if cut is None:
        return {f"{name}.below": at} if at else {}
    found = {f"{name}.hundreds": at[: cut + 1]}
    return found | ({f"{name}.below": at[cut + 1 :]} if at[cut + 1 :] else {})


def aligned(source: list[str], target: list[str]) -> dict[int, list[int]]:
    """For each English word of a number, the source words that say the same part of it.

    A German number is one word. A French "cent" alone says "one hundred", "mille" alone "one thousand"; "et" belongs to
    the part that it stands in.
    """
    have, wanted = parts(source), parts(target)
    numbers = [i for name, words in have.items() if not name.startswith("digits") for i in words]
    if len(numbers) == 1:
        have = {name: words for name, words in have.items() if name.startswith("digits")}
        have |= {name: numbers for name in wanted if not name.startswith("digits")}
    elif "thousand" in have and "thousands.below" in wanted and "thousands.below" not in have:
        have["thousands.below"] = have["thousand"]
    return {i: have[name] for name, words in wanted.items() for i in words if name in have}
