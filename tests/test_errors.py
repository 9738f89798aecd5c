"""One rule for errors: a user's mistake is a UserError, everywhere; any other exception is a fault of regard."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import regard
from regard.errors import UserError

PACKAGE = Path(regard.__file__).parent

# Python's own errors that say nothing about whose mistake it was.
PLAIN = {"ValueError", "TypeError", "RuntimeError", "KeyError", "IndexError", "LookupError", "Exception"}
# Not a user's mistake, each with the reason. A row that no longer applies fails the test.
FAULTS = {
    ("hf/seam.py", "KeyError"): "stands for a registry's own error",
    ("bench/serving/peers.py", "RuntimeError"): "another program fell silent",
}
# Exceptions that another room turns into a reason or a UserError before a user sees them.
INTERNAL = {"TooManyRuns", "_Gone"}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def raised(path: Path) -> Iterator[tuple[str, int]]:
    """(name, line) of what a file raises by name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Raise) and node.exc is not None:
            made = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            if isinstance(made, ast.Name):
                yield made.id, node.lineno


def is_error(base: ast.expr) -> bool:
    return isinstance(base, ast.Name) and base.id.endswith(("Error", "Exception"))


def test_whatever_a_user_can_ask_wrongly_raises_a_user_error() -> None:
    names = ((path.relative_to(PACKAGE).as_posix(), *each) for path in modules() for each in raised(path))
    plain = {(path, name): line for path, name, line in names if name in PLAIN}
    wrong = [f"regard/{key[0]}:{line} raises {key[1]}" for key, line in plain.items() if key not in FAULTS]
    assert not wrong, f"raise UserError (regard/errors.py), or add a row with the reason to FAULTS: {wrong}"
    assert set(FAULTS) <= set(plain), f"no longer raised: {set(FAULTS) - set(plain)}"


def test_every_error_class_is_a_user_error_or_is_caught_within() -> None:
    names = {
        node.name: path
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and any(is_error(base) for base in node.bases)
    }
    names.pop("UserError")
    for name, path in names.items():
        if name in INTERNAL:
            continue
        dotted = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        found = getattr(importlib.import_module(dotted), name)
        assert issubclass(found, UserError), f"{dotted}.{name} is no UserError"


def test_the_scan_sees_a_plain_error(tmp_path: Path) -> None:
    file = tmp_path / "one.py"
    file.write_text("def f():\n    raise ValueError('no')\n")
    assert list(raised(file)) == [("ValueError", 2)]
