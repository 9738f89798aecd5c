"""From tokens to text, one at a time: no half characters, and nothing that may yet turn out to be a stop string."""

from __future__ import annotations

from typing import Any

BROKEN = "�"  # what a decoder writes for bytes that are no whole character


class Detokeniser:
    """Text of a growing list of tokens. Decoding depends on a token's neighbours, so each is decoded with some before
    it, and bytes that may be half of a character wait."""

    def __init__(self, tokenizer: Any, prompt: list[int], keep_special: bool = False) -> None:
        self._tokenizer = tokenizer
        self._skip = not keep_special
        self._tokens = prompt[-6:]
        self._start = 0
        self._told = len(self._tokens)
        self._before = self._decode(0, self._told)

    def _decode(self, start: int, stop: int) -> str:
        return str(self._tokenizer.decode(self._tokens[start:stop], skip_special_tokens=self._skip))

    def add(self, token: int) -> str:
        """The text that this token completes; may be empty."""
        self._tokens.append(token)
        text = self._decode(self._start, len(self._tokens))
        if len(text) <= len(self._before) or text.endswith(BROKEN):
            return ""
        new = text[len(self._before) :]
        self._start, self._told = self._told, len(self._tokens)
        self._before = self._decode(self._start, self._told)
        return new

    def rest(self) -> str:
        """What is left when no token follows."""
        return self._decode(self._start, len(self._tokens))[len(self._before) :]


class StopStrings:
    """Holds back the end of a text while it may be the beginning of a stop string."""

    def __init__(self, strings: tuple[str, ...], keep: bool = False) -> None:
        self._strings = strings
        self._keep = keep
        self._held = ""

    def add(self, text: str) -> tuple[str, str | None]:
        """(text that is safe to show, the stop string that was met or None)."""
        if not self._strings:
            return text, None
        held = self._held + text
        ends = [(at + len(s), at, s) for s in self._strings if (at := held.find(s)) >= 0]
        if ends:
            end, at, stop = min(ends)
            self._held = ""
            return held[: end if self._keep else at], stop
        keep = max((_overlap(held, s) for s in self._strings), default=0)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep], None

    def rest(self) -> str:
        """What was held back, when nothing follows."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of the text that begins the stop string."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
