"""Tasks by their name."""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module

from regard.errors import UserError
from regard.tasks import kinds
from regard.tasks.kind import Kind


@cache
def every() -> dict[str, Kind]:
    """Every task of `kinds/`."""
    modules = [import_module(f"{kinds.__name__}.{file.name}") for file in pkgutil.iter_modules(kinds.__path__)]
    found = [value for module in modules for value in vars(module).values() if isinstance(value, Kind)]
    return {each.name: each for each in sorted(found, key=lambda each: each.name)}


def kind(name: str) -> Kind:
    """A task by its name. Raises UserError, naming those there are."""
    if name not in every():
        raise UserError(f"--task is one of translate, {', '.join(every())}, not {name!r}")
    return every()[name]
