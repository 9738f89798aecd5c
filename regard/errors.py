"""The one kind of error that a user can mend.

The rule: whatever a user can ask wrongly raises a UserError or a class derived from it, in every room, whether asked in
Python or on the command line. Its message is one sentence: what was asked, what is wrong with it, what to do. The
command prints that sentence and exits with code 2. Any other exception is a fault of regard and keeps its traceback.
"""

from __future__ import annotations


class UserError(ValueError):
    """Something that was asked for cannot be done; the message says what, why not, and what to do instead."""
