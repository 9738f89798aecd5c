"""Cache policies: what stays in a cache, by exact statistics. A policy is a class in any file of this folder."""

from __future__ import annotations

import inspect
import pkgutil
from functools import cache
from importlib import import_module
from typing import Any

from regard.errors import UserError
from regard.swap.policies.policy import Policy
from regard.text.reader import Call, Reader

__all__ = ["Policy", "every", "policy_of"]


@cache
def every() -> dict[str, type[Policy]]:
    """Every policy of this folder by its name."""
    kinds: list[type[Policy]] = []
    for file in pkgutil.iter_modules(__path__):
        module = import_module(f"{__name__}.{file.name}")
        classes = [x for x in vars(module).values() if isinstance(x, type) and issubclass(x, Policy)]
        kinds.extend(x for x in classes if x.__module__ == module.__name__ and not inspect.isabstract(x))
    return {kind.name: kind for kind in sorted(kinds, key=lambda kind: kind.name)}


def policy_of(given: Policy | str, **more: Any) -> Policy:
    """The policy that a text such as "h2o(0.25)" or "snapkv(512, window=32)" says. more: fields a text cannot hold.

    Raises UserError for a name that no policy has, and for arguments that it does not take.
    """
    if isinstance(given, Policy):
        return given
    reader = Reader(given)
    tree = reader.expression()
    if reader.token[0] != "end" or not isinstance(tree, Call):
        raise UserError(f"a policy is written as h2o(0.25) or snapkv(512, window=32), not {given!r}")
    if tree.name not in every():
        raise UserError(f"no policy is called {tree.name!r}; there are: {', '.join(every())}")
    kind = every()[tree.name]
    names = [name for name in inspect.signature(kind).parameters if name != "measured"]
    if not tree.arguments:
        raise UserError(f"{tree.name} needs a budget: a share such as {tree.name}(0.25), or a number of tokens")
    values: dict[str, Any] = {}
    for place, (name, value) in enumerate(tree.arguments):
        wanted = name or (names[place] if place < len(names) else "")
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        whole = wanted in ("budget", "safe") or isinstance(value, int)
        if wanted not in names or wanted in values or not is_number or not whole:
            raise UserError(f"{tree.name} is written {tree.name}({', '.join(names)}) with numbers, not {given!r}")
        values[wanted] = value
    return kind(**values, **{name: value for name, value in more.items() if value is not None})
