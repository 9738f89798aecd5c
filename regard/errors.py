"""The one kind of error that is the user's to mend: its message is one sentence that names the thing and the remedy."""

from __future__ import annotations

from pathlib import Path


class UserError(ValueError):
    """Something that was asked for cannot be done; the command prints the message alone and exits with code 2."""


def is_file(path: str | Path) -> bool:
    """Whether a path names a file; a text too long to be a path does not."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False
