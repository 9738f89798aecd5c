"""Linear layers for few rows: weights packed once, read once per call, whatever the number of rows up to 256."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from regard.errors import UserError
from regard.run.native.extension import extension

PANEL = 32
STORED = {torch.float32: 0, torch.int8: 1, torch.bfloat16: 2}
BYTES = 3  # int8 weights whose rows of x are rounded too
INTO = {"store": 0, "add": 1, "gated": 2}
Into = Literal["store", "add", "gated"]


@dataclass(frozen=True, eq=False)
class PackedLinear:
    """y = x · wᵀ + b with w [N,K] in panels of 32 outputs: float32 or int8 (with a scale per output) as [N/32, K, 32];
    bfloat16 as [N/32, K/2, 32, 2], which takes half the memory and gives the bits of the same weights in float32; int8
    whose rows of x are rounded to int8 too as [N/32, K/4, 32, 4].

    A row's result does not depend on the other rows of the call: same bits alone and in any batch.
    """

    panels: Tensor
    scale: Tensor | None
    bias: Tensor | None
    num_outputs: int
    depth: int

    @property
    def stored(self) -> int:
        """What the panels hold, as the extension numbers it."""
        return BYTES if self.panels.ndim == 4 and self.panels.dtype == torch.int8 else STORED[self.panels.dtype]

    @classmethod
    def pack(cls, weight: Tensor, bias: Tensor | None = None, scale: Tensor | None = None) -> PackedLinear:
        """From a weight [N,K]: floating point (bfloat16 stays, others become float32), or int8 with its scale [N]
        (w = scale · int8)."""
        if (weight.dtype == torch.int8) != (scale is not None):
            raise UserError(f"int8 weights come with a scale per output and others without, got {weight.dtype}")
        stored = weight.detach() if weight.dtype in STORED else weight.detach().float()
        group = 2 if stored.dtype == torch.bfloat16 else 1
        return cls(_panels(stored, group, 32 if group > 1 else 1), _floats(scale), _floats(bias), *weight.shape)

    @classmethod
    def quantised(cls, weight: Tensor, bias: Tensor | None = None, rows: bool = False) -> PackedLinear:
        """From a weight [N,K], rounded to int8 with one scale per output: scale = max |w| / 127. rows: the rows of x
        are rounded alike, each with a scale of its own."""
        scale = weight.detach().float().abs().amax(1).clamp(min=1e-30) / 127
        rounded = (weight.detach().float() / scale[:, None]).round().clamp(-127, 127).to(torch.int8)
        if not rows:
            return cls.pack(rounded, bias, scale)
        return cls(_panels(rounded, 4, 64), _floats(scale), _floats(bias), *weight.shape)

    def __call__(self, x: Tensor) -> Tensor:
        """x [..., K] -> [..., N] float32."""
        if x.shape[-1] != self.depth:
            raise UserError(f"rows must have {self.depth} numbers, got {list(x.shape)}")
        if x.requires_grad and torch.is_grad_enabled():
            raise UserError("a packed linear layer has no gradient; use torch.nn.functional.linear, or no_grad")
        rows = x if x.ndim == 2 else x.reshape(-1, self.depth)
        if rows.dtype != torch.float32:
            rows = rows.float()
        if rows.stride(1) != 1:
            rows = rows.contiguous()
        y = torch.empty((rows.shape[0], self.num_outputs))
        self.into(rows, y, "store")
        return y if x.ndim == 2 else y.view(*x.shape[:-1], self.num_outputs)

    def into(self, x: Tensor, y: Tensor, how: Into, gain: Tensor | None = None, eps: float = 0.0) -> None:
        """x [M,K] float32 -> y [M, ≥ N] float32, in place; rows may lie apart, their numbers side by side. Nothing is
        checked.

        how: y = z; y += z; or gated, where z is (16 gates, their 16 values, …) and y [M,N/2] = silu(gate) · value.
        gain [K]: rows are normalised first, x / sqrt(mean x² + eps) · gain.
        """
        native = extension()
        at = 0 if gain is None else gain.data_ptr()
        rows = native.rows(x.data_ptr(), x.stride(0), x.shape[0], self.depth, at, eps)
        native.multiply_packed(self.weights, rows, y.data_ptr(), y.stride(0), INTO[how], torch.get_num_threads())

    @cached_property
    def weights(self) -> Any:
        """The extension's record: addresses of panels, scale and bias, and what the panels hold."""
        scale, bias = (0 if t is None else t.data_ptr() for t in (self.scale, self.bias))
        return extension().weights(self.panels.data_ptr(), self.stored, scale, bias, self.depth, self.num_outputs)


def gated(gate: Tensor, value: Tensor) -> Tensor:
    """Weights [N,K] (or biases [N]) of a gate and its values as one, 16 and 16 in turn, for `into(how="gated")`.

    Raises UserError where N is no multiple of 16.
    """
    if gate.shape[0] % 16:
        raise UserError(f"a gated layer needs a width that 16 divides, got {gate.shape[0]}")
    both = [x.detach().unflatten(0, (-1, 16)) for x in (gate, value)]
    return torch.stack(both, 1).flatten(0, 2)


def _panels(stored: Tensor, group: int, multiple: int) -> Tensor:
    """[N/32, K, 32], or [N/32, K/group, 32, group] with K filled up with zeros to a multiple."""
    outputs, depth = stored.shape
    padded = pad(stored, (0, -depth % multiple, 0, -outputs % PANEL))
    if group == 1:
        panels = padded.view(-1, PANEL, depth).transpose(1, 2).contiguous()
    else:
        panels = padded.view(-(-outputs // PANEL), PANEL, -1, group).transpose(1, 2).contiguous()
    extension().advise_huge(panels.data_ptr(), panels.numel() * panels.element_size())
    return panels


def _floats(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.detach().float().contiguous()
