"""From characters to a tree of names, arguments and signs."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from regard.errors import UserError


class TextError(UserError):
    """A text that does not say an attention: one sentence, and the place."""

    def __init__(self, reason: str, text: str, start: int, end: int) -> None:
        self.reason, self.text, self.start, self.end = reason, text, start, end
        line = re.sub(r"\s", " ", text)
        super().__init__(f"{reason}\n  {line}\n  {' ' * start}{'^' * max(end - start, 1)}")


@dataclass(frozen=True)
class Call:
    name: str
    arguments: tuple[tuple[str | None, Any], ...]
    start: int
    end: int


@dataclass(frozen=True)
class Joined:
    sign: Literal["&", "|", "~"]
    parts: tuple[Tree, ...]
    start: int
    end: int


Tree = Call | Joined
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_TOKEN = re.compile(rf"\s*(?:(?P<name>[A-Za-z_]\w*)|(?P<number>{_NUMBER})|(?P<sign>\S))")
_WORDS = {"True": True, "False": False, "None": None}


class Reader:
    """Recursive descent over tokens (kind, text, start, end)."""

    def __init__(self, text: str) -> None:
        self.text, self.place, self.last_end = text, 0, 0
        self.token = self._next()

    def _next(self) -> tuple[str, str, int, int]:
        found = _TOKEN.match(self.text, self.place)
        if found is None or found.lastgroup is None or not found.group(found.lastgroup).strip():
            return "end", "the end", len(self.text), len(self.text)
        kind = found.lastgroup
        return kind, found.group(kind), found.start(kind), found.end(kind)

    def take(self) -> tuple[str, str, int, int]:
        taken = self.token
        self.place = self.last_end = taken[3]
        self.token = self._next()
        return taken

    def error(self, reason: str) -> TextError:
        return TextError(reason, self.text, self.token[2], self.token[3])

    def expect(self, sign: str) -> None:
        if self.token[1] != sign:
            raise self.error(f"expected {sign!r}, found {self.token[1]!r}")
        self.take()

    def expression(self) -> Tree:
        return self._joined("|", self._term)

    def _term(self) -> Tree:
        return self._joined("&", self._factor)

    def _joined(self, sign: Literal["&", "|"], read: Callable[[], Tree]) -> Tree:
        parts = [read()]
        while self.token[1] == sign:
            self.take()
            parts.append(read())
        return parts[0] if len(parts) == 1 else Joined(sign, tuple(parts), parts[0].start, self.last_end)

    def _factor(self) -> Tree:
        kind, word, start, _ = self.token
        if word == "~":
            self.take()
            return Joined("~", (self._factor(),), start, self.last_end)
        if word == "(":
            self.take()
            inner = self.expression()
            self.expect(")")
            return replace(inner, start=start, end=self.last_end)
        if kind != "name":
            raise self.error(f"expected the name of a mask, part or mechanism, found {word!r}")
        self.take()
        arguments = self._arguments() if self.token[1] == "(" else ()
        return Call(word, arguments, start, self.last_end)

    def _arguments(self) -> tuple[tuple[str | None, Any], ...]:
        self.take()
        found: list[tuple[str | None, Any]] = []
        while self.token[1] != ")":
            if found:
                self.expect(",")
            found.append(self._argument())
        self.take()
        return tuple(found)

    def _argument(self) -> tuple[str | None, Any]:
        kind, word, _, _ = self.token
        if kind == "name" and word not in _WORDS:
            self.take()
            self.expect("=")
            return word, self._literal()
        return None, self._literal()

    def _literal(self) -> Any:
        kind, word, _, _ = self.token
        if kind == "number":
            self.take()
            return float(word) if re.search(r"[.eE]", word) else int(word)
        if word in _WORDS:
            self.take()
            return _WORDS[word]
        raise self.error(f"expected a number, True, False or None, found {word!r}")
