"""Parallel and plain text from files: read whole, checked line by line."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from regard.errors import UserError


@dataclass(frozen=True)
class Pairs:
    """Sentences and their translations, one line each."""

    source: list[str]
    target: list[str]

    def __len__(self) -> int:
        return len(self.source)

    def part(self, rows: Sequence[int]) -> Pairs:
        """Some of the pairs, in this order."""
        return Pairs([self.source[i] for i in rows], [self.target[i] for i in rows])


def lines(path: Path, strip: bool = True) -> list[str]:
    """The lines of a plain or gzipped UTF-8 file, without spaces around them if `strip`. Raises
    UserError, naming file and line, for anything else."""
    try:
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            raw = gzip.decompress(raw)
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"cannot read {path} ({reason}); give a plain or gzipped text file") from None
    found = raw.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    if found and not found[-1]:
        found.pop()
    read = [_text(line, path, number) for number, line in enumerate(found, 1)]
    return [line.strip() for line in read] if strip else [line.removesuffix("\r") for line in read]


def _text(line: bytes, path: Path, number: int) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        raise UserError(f"line {number} of {path} is not UTF-8; convert the file, for example with iconv") from None


def pairs(paths: Sequence[Path]) -> Pairs:
    """Parallel text of two files, line by line, or of one tsv: source, tab, target.

    Raises UserError for files of different length, a line without its other side, a wrong encoding or nothing to read.
    """
    if len(paths) == 1:
        found = _columns(paths[0])
    elif len(paths) == 2:
        found = Pairs(lines(paths[0]), lines(paths[1]))
        if len(found.source) != len(found.target):
            raise UserError(
                f"{paths[0]} has {len(found.source)} lines and {paths[1]} has {len(found.target)}; parallel text has "
                "as many on both sides"
            )
    else:
        raise UserError(f"parallel text is two files, or one tsv, not {len(paths)} files")
    if not found.source:
        raise UserError(f"{paths[0]} is empty; give a file with a sentence a line")
    for path, side in zip((paths[0], paths[-1]), (found.source, found.target), strict=True):
        empty = next((i for i, line in enumerate(side, 1) if not line), None)
        if empty is not None:
            raise UserError(f"line {empty} of {path} has an empty side; remove the pair from both sides")
    return found


def _columns(path: Path) -> Pairs:
    source, target = [], []
    for number, line in enumerate(lines(path), 1):
        parts = line.split("\t")
        if len(parts) != 2:
            raise UserError(f"line {number} of {path} has {len(parts)} columns; a tsv holds source, tab, target")
        source.append(parts[0].strip())
        target.append(parts[1].strip())
    return Pairs(source, target)
