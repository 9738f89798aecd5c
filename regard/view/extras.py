"""Optional packages of pictures, imported where they are used."""

from __future__ import annotations

import importlib
from types import ModuleType


def needed(module: str, what: str) -> ModuleType:
    """The module. Raises ImportError with the line that installs it, naming what needs it."""
    package = module.split(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != package:
            raise
        raise ImportError(f"{what} needs {package}: pip install 'regard[view]'") from None
