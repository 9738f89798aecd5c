"""Verbs are found: a module of `verbs/` is a verb, a package there a group of verbs. None is imported before it is
named, except for the list that --help prints."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from typing import Any

import typer
from typer.core import TyperGroup


def verbs_in(package: str) -> type[TyperGroup]:
    """The group of all verbs in a package: module `see` holds the function `see`, whose options are the verb's."""

    class Verbs(TyperGroup):
        def list_commands(self, ctx: Any) -> list[str]:
            return [each.name for each in pkgutil.iter_modules(importlib.import_module(package).__path__)]

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            return _verb(package, cmd_name) if cmd_name in self.list_commands(ctx) else None

    return Verbs


def _verb(package: str, name: str) -> Any:
    module = importlib.import_module(f"{package}.{name}")
    if hasattr(module, "__path__"):
        group = typer.Typer(name=name, cls=verbs_in(module.__name__), no_args_is_help=True, add_completion=False)
        group.callback(help=inspect.getdoc(module))(lambda: None)
        return typer.main.get_command(group)
    alone = typer.Typer(add_completion=False)
    alone.command(name)(getattr(module, name))
    return typer.main.get_command(alone)
