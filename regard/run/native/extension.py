"""Finding the compiled extension, or saying why there is none."""

from __future__ import annotations

import os
from functools import cache
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType

from regard.errors import UserError

NAME = "regard.run.native._core"


def _import(path: str | None) -> ModuleType:
    """The installed extension, or another build of it by path (the sanitized one, in tests)."""
    if not path:
        return import_module(NAME)
    spec = spec_from_file_location(NAME, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"REGARD_NATIVE_LIBRARY={path} is no extension module")
    found = module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@cache
def _load() -> tuple[ModuleType | None, str | None]:
    try:
        found = _import(os.environ.get("REGARD_NATIVE_LIBRARY"))
    except ImportError as error:
        return None, (
            f"the native core was not built ({error}); install a C++17 compiler and CMake 3.20 or newer and reinstall"
            " regard"
        )
    try:
        found.isa()
    except RuntimeError as error:
        return None, f"the native core cannot run here: {error}"
    return found, None


def extension() -> ModuleType:
    """The compiled module; raises UserError with the reason where there is none."""
    found, reason = _load()
    if found is None:
        raise UserError(reason)
    return found


def available() -> bool:
    """Whether the native core can be used in this process."""
    return _load()[0] is not None


def why_unavailable() -> str | None:
    """Why the native core cannot be used, or None if it can."""
    return _load()[1]


def isa() -> str:
    """The instruction set in use: "base", "avx2" or "avx512"."""
    return str(extension().isa())
