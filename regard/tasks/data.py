"""Examples from tsv and jsonl files, checked line by line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from regard.errors import UserError
from regard.seq2seq.corpus import lines

Row = tuple[str, str]


def columns(paths: Sequence[Path], first: str, second: str) -> list[Row]:
    """The two fields of every line: of a tsv (first, tab, second), or of a jsonl by these names.

    Raises UserError naming file and line.
    """
    found = [row for path in paths for row in _rows(path, first, second)]
    if not found:
        raise UserError(f"{paths[0]} is empty; give a file with an example a line")
    return found


def _rows(path: Path, first: str, second: str) -> list[Row]:
    read = []
    for number, line in enumerate(lines(path, strip=False), 1):
        if path.suffix in (".jsonl", ".json"):
            fields = _fields(path, number, line, first, second)
        else:
            fields = line.split("\t")
            if len(fields) != 2:
                raise UserError(f"line {number} of {path} has {len(fields)} columns; a line is {first}, tab, {second}")
        if not all(field.strip() for field in fields):
            raise UserError(f"line {number} of {path} has an empty {first} or {second}; remove it")
        read.append((fields[0].strip(), fields[1].strip()))
    return read


def _fields(path: Path, number: int, line: str, first: str, second: str) -> list[str]:
    try:
        plain: Any = json.loads(line)
        return [str(plain[first]), str(plain[second])]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"line {number} of {path} is no JSON object with {first!r} and {second!r}") from None


def files(paths: Sequence[Path], second: str) -> list[tuple[Path, str, str]]:
    """(file, words, where it is named) of every line, files as from the directory of the list that names them.

    Raises UserError naming list and line for a file that is not there.
    """
    found = []
    for path in paths:
        for number, (name, words) in enumerate(_rows(path, "path", second), 1):
            file = path.parent / name
            if not file.is_file():
                raise UserError(f"line {number} of {path} names {name}, and there is no such file; correct the line")
            found.append((file, words, f"line {number} of {path}"))
    if not found:
        raise UserError("the data is empty; give a file with an example a line")
    return found
