"""One call of an attention module: with what it was called."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True, eq=False)
class Attended:
    """A module by its dotted name, the arguments of this call, and, once it has ended, what it returned."""

    name: str
    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any = None

    def argument(self, name: str) -> Any:
        """An argument of the module's forward by name; None where it was left out."""
        bound = inspect.signature(self.module.forward).bind_partial(*self.args, **self.kwargs).arguments
        return bound.get("kwargs", {}).get(name) if name not in bound else bound[name]
