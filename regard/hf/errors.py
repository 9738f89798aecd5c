"""The error of this package: what of a model cannot be watched."""

from __future__ import annotations

from regard.errors import UserError


class Unsupported(UserError):
    """The model, or one call of its attention, is outside what can be watched exactly; says what and what to do."""
