"""What the words of a command line mean: files to write, lists of numbers, a head. Each is checked before any work."""

from __future__ import annotations

import os
from pathlib import Path

from regard.errors import UserError


def writable(path: Path, formats: tuple[str, ...]) -> Path:
    """A file that can be written, its format told by its extension. Raises UserError before any work is done."""
    if path.suffix.lower() not in formats:
        raise UserError(f"cannot tell what to write to {path}: its name must end in {', '.join(formats)}")
    try:
        if not path.parent.is_dir():
            raise UserError(f"there is no directory {path.parent} to write {path.name} to; make it first")
        if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
            raise UserError(f"cannot write {path}: it is read-only or a directory; choose another path")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; choose another path") from None
    return path


def numbers_in(given: str | None, option: str) -> list[int] | None:
    """Numbers and ranges: 0,3-5 is [0, 3, 4, 5]. None where the option was not given."""
    if given is None:
        return None
    found: list[int] = []
    for part in given.split(","):
        first, dash, last = (word.strip() for word in part.partition("-"))
        last = last if dash else first
        if not _is_number(first) or not _is_number(last) or int(last) < int(first):
            raise UserError(f"{option} takes numbers and ranges such as 0,3-5, not {given!r}")
        found += range(int(first), int(last) + 1)
    return list(dict.fromkeys(found))


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdigit() and len(word) < 6


def layer_heads(given: str | None) -> list[tuple[int, int]]:
    """Heads as layer.head, several with commas between them; none where the option was not given."""
    found = []
    for part in [] if given is None else given.split(","):
        layer, _, head = part.strip().partition(".")
        if not _is_number(layer) or not _is_number(head):
            raise UserError(f"--head takes layer.head such as 3.1, not {part!r}")
        found.append((int(layer), int(head)))
    return list(dict.fromkeys(found))


def one_of(given: str, known: tuple[str, ...], option: str) -> str:
    if given not in known:
        raise UserError(f"{option} is one of {', '.join(known)}, not {given!r}")
    return given
