"""The one kind of error that is the user's to mend: its message is one sentence that names the thing and the remedy."""

from __future__ import annotations


class UserError(ValueError):
    """Something that was asked for cannot be done; the command prints the message alone and exits with code 2."""
