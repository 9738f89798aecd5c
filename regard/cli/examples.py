"""--example: the embedded examples, each a directory of a model with its card and an input."""

from __future__ import annotations

from pathlib import Path

from regard.errors import UserError

EXAMPLES = Path(__file__).parent.parent / "examples"
INPUT = "input"  # a file of this stem stands beside the model


def names() -> list[str]:
    """The examples there are."""
    return sorted(path.name for path in EXAMPLES.iterdir() if (path / "config.json").is_file())


def example(name: str) -> tuple[str, str]:
    """(directory, input) of an example: its text, or the path of its picture or sound. Raises UserError, naming those
    there are."""
    if name not in names():
        raise UserError(f"--example is one of {', '.join(names())}, not {name!r}")
    folder = EXAMPLES / name
    given = next(path for path in sorted(folder.iterdir()) if path.stem == INPUT)
    return str(folder), given.read_text(encoding="utf-8").strip() if given.suffix == ".txt" else str(given)
