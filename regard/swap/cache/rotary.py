"""The rotation of a model's queries and keys, taken back and averaged: what expected attention needs to know."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor, nn

from regard.errors import UserError


class ModelRotary:
    """A model's own rotary module, applied to the first features by halves."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def back(self, q: Tensor) -> Tensor:
        """Queries [H,n,D] at positions 0 … n-1 without their rotation, float32."""
        cos, sin = self._angles(q, 0, q.shape[1])
        width = cos.shape[-1]
        first, rest = q[..., :width].float(), q[..., width:].float()
        turned = first * cos - _half(first) * sin
        return torch.cat([turned / (cos.square() + sin.square()), rest], -1)

    def ahead(self, length: int, future: int) -> Tensor:
        """[D,D]: the mean rotation at positions length … length + future - 1; as wide as `back` has seen queries."""
        cos, sin = self._angles(self._like, length, future)
        cos, sin = cos.mean(0), sin.mean(0)
        width, whole = len(cos), self._like.shape[-1]
        eye = torch.eye(width, device=cos.device)
        turn = torch.eye(whole, device=cos.device)
        turn[:width, :width] = eye * cos[:, None] + _half(eye.T).T * sin[:, None]
        return turn

    def _angles(self, like: Tensor, first: int, count: int) -> tuple[Tensor, Tensor]:
        """cos and sin [count, width] at positions first … first + count - 1."""
        self._like = like
        positions = torch.arange(first, first + count, device=like.device)[None]
        cos, sin = self.module(like[None].float(), positions)
        return cos[0].float(), sin[0].float()


def _half(x: Tensor) -> Tensor:
    """(a, b) -> (-b, a), by halves of the last axis."""
    a, b = x.chunk(2, -1)
    return torch.cat([-b, a], -1)


def rotary_of(model: nn.Module) -> ModelRotary | None:
    """The rotation of a model, None for a model without one.

    Raises UserError where it is none that is known here: several of them, or one that does not rotate by halves.
    """
    named: dict[int, Any] = {id(m): m for name, m in model.named_modules() if name.split(".")[-1] == "rotary_emb"}
    modules = list(named.values())
    kind = type(model).__name__
    code = sys.modules[type(model).__module__]
    turns = getattr(code, "rotate_half", None)
    if not modules and turns is None:
        return None
    probe = torch.arange(4.0)
    if len(modules) != 1 or turns is None or not torch.equal(turns(probe), _half(probe)):
        raise UserError(f"expected attention takes the rotation off queries, and that of {kind} is not known to it")
    return ModelRotary(modules[0])
