"""The text of tokens as a person reads it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

BROKEN = "\ufffd"
LONGEST = 12  # tokens that one character, or one emoji of several, may be cut into


def texts(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """One text for each token of a sequence: its own leading space kept, its number without a tokenizer.

    A word begins with a space: " cat", "s". Tokens that hold only bytes of a character (byte-level vocabularies cut
    "日" or a curly quote in three) read as that character and which of its pieces this is: "日 1/3". Bytes that are no
    text at all stay as they are decoded.
    """
    alone = [_alone(tokenizer, number) for number in ids]
    found, at = list(alone), 0
    while at < len(alone):
        size = _whole(tokenizer, ids, alone, at)
        if size:
            text = _decoded(tokenizer, ids[at : at + size])
            lead = text[: len(text) - len(text.lstrip(" "))]
            found[at : at + size] = [f"{lead if not n else ''}{text[len(lead) :]} {n + 1}/{size}" for n in range(size)]
        at += size or 1
    return found


def _whole(tokenizer: Any, ids: Sequence[int], alone: list[str], at: int) -> int:
    """How many tokens from here on are pieces of one character; 0 where this one is no such piece."""
    if BROKEN not in alone[at]:
        return 0
    for size in range(2, min(LONGEST, len(ids) - at) + 1):
        if BROKEN not in alone[at + size - 1]:
            return 0
        if BROKEN not in _decoded(tokenizer, ids[at : at + size]):
            return size
    return 0


def _alone(tokenizer: Any, number: int) -> str:
    if tokenizer is None:
        return str(number)
    piece = tokenizer.convert_ids_to_tokens(number)
    if piece is None:
        return str(number)
    if "▁" in piece or number in tokenizer.all_special_ids:
        return str(piece).replace("▁", " ")
    return _decoded(tokenizer, [number]) or str(piece)


def _decoded(tokenizer: Any, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))
