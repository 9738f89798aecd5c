"""--batch: the answers to a file of inputs, a line each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regard.cli.reading import IMAGES, read_input
from regard.errors import UserError

if TYPE_CHECKING:
    from regard.hf.load import Loaded
    from regard.seeing.answer import Answer

ANSWERS = (".jsonl", ".json", ".tsv")
MEDIA = IMAGES | {".wav"}


def answer_file(model: str | None, source: Path, target: Path, options: dict[str, Any]) -> str:
    """Answer every line of a file into another, which is written whole or not at all; a sentence on what was done.

    A line is a text, or the path of an image or a sound, as from the file's own directory. A line with a tab is a
    question and, after the tab, the text that it asks about. Raises UserError with the number of a line that cannot be
    answered.
    """
    from regard.hf.load import load
    from regard.seeing.trace import write_whole
    from regard.seq2seq import make_known

    lines = _lines(source)
    make_known(model)
    loaded = load(model)
    rows = [(line, _answered(loaded, source, number, line, options)) for number, line in lines]
    write_whole(target, _written(target.suffix.lower(), rows))
    return f"{target}: {len(rows)} answers"


def _lines(source: Path) -> list[tuple[int, str]]:
    text = read_input(f"@{source}")
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise UserError(f"{source} holds no inputs; give one a line")
    return lines


def _answered(loaded: Loaded, source: Path, number: int, line: str, options: dict[str, Any]) -> Answer:
    from regard.hf.see import answer

    question, tab, text = line.partition("\t")
    given, asked = (text, question) if tab else (line, options["question"])
    if Path(given).suffix.lower() in MEDIA:
        given = str(source.parent / given)
    try:
        return answer(loaded, read_input(given) if Path(given).suffix.lower() in MEDIA else given, **(
            options | {"question": asked}
        ))  # fmt: skip
    except UserError as error:
        raise UserError(f"line {number} of {source}: {error}") from None


def _written(kind: str, rows: list[tuple[str, Answer]]) -> str:
    if kind == ".tsv":
        cells = (
            [line, answer.text, "" if answer.confidence is None else f"{answer.confidence:.6f}"]
            for line, answer in rows
        )
        return "".join("\t".join(" ".join(cell.split()) for cell in row) + "\n" for row in cells)
    plain = [{"input": line} | answer.json() for line, answer in rows]
    if kind == ".json":
        return json.dumps(plain, ensure_ascii=False, indent=1) + "\n"
    return "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in plain)
