"""What a model was called with, by name: cheap enough for every forward."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any

from torch import nn


def parameters_of(model: nn.Module) -> tuple[str, ...]:
    """The names of a model's inputs, in order."""
    kind: Any = type(model)
    return _parameters(kind)


@cache
def _parameters(kind: Any) -> tuple[str, ...]:
    return tuple(inspect.signature(kind.forward).parameters)[1:]


def passed_to(model: nn.Module, args: tuple[Any, ...], keywords: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of one call of a model, by name."""
    return {**dict(zip(parameters_of(model), args, strict=False)), **keywords}
