"""Guessing the next tokens from the text itself: what followed the last few tokens when they came before.

A guess costs rows of the next step; the tokens chosen are those that would be chosen without it. (Prompt lookup
decoding: Saxena 2023.)
"""

from __future__ import annotations

from collections.abc import Sequence

LONGEST, SHORTEST = 3, 2


def guess(tokens: Sequence[int], most: int) -> tuple[int, ...]:
    """Up to `most` tokens that followed the latest earlier occurrence of the last three (else two) tokens."""
    for size in range(LONGEST, SHORTEST - 1, -1):
        if len(tokens) <= size:
            continue
        ending = list(tokens[-size:])
        last = ending[-1]
        for at in range(len(tokens) - 2, size - 2, -1):
            if tokens[at] == last and list(tokens[at - size + 1 : at + 1]) == ending:
                return tuple(tokens[at + 1 : at + 1 + most])
    return ()
