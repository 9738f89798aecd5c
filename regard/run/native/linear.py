"""Linear layers for few rows: weights packed once, read once per call, whatever the number of rows up to 256."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from regard.run.native.extension import extension

PANEL = 32
STORED = {torch.float32: 0, torch.int8: 1, torch.bfloat16: 2}


@dataclass(frozen=True, eq=False)
class PackedLinear:
    """y = x · wᵀ + b with w [N,K] in panels of 32 outputs, [N/32, K, 32]; float32, int8 with a scale per output, or
    bfloat16, which takes half the memory and gives the bits that the same weights in float32 give.

    A row's result does not depend on the other rows of the call: same bits alone and in any batch.
    """

    panels: Tensor
    scale: Tensor | None
    bias: Tensor | None
    num_outputs: int

    @property
    def depth(self) -> int:
        """K: the width of an input row."""
        return self.panels.shape[1]

    @classmethod
    def pack(cls, weight: Tensor, bias: Tensor | None = None, scale: Tensor | None = None) -> PackedLinear:
        """From a weight [N,K]: floating point (bfloat16 stays, others become float32), or int8 with its scale [N]
        (w = scale · int8)."""
        if (weight.dtype == torch.int8) != (scale is not None):
            raise ValueError(f"int8 weights come with a scale per output and others without, got {weight.dtype}")
        outputs, depth = weight.shape
        stored = weight.detach() if weight.dtype in STORED else weight.detach().float()
        padded = torch.nn.functional.pad(stored, (0, 0, 0, -outputs % PANEL))
        panels = padded.view(-1, PANEL, depth).transpose(1, 2).contiguous()
        return cls(panels, _floats(scale), _floats(bias), outputs)

    @classmethod
    def quantised(cls, weight: Tensor, bias: Tensor | None = None) -> PackedLinear:
        """From a weight [N,K], rounded to int8 with one scale per output: scale = max |w| / 127."""
        scale = weight.detach().float().abs().amax(1).clamp(min=1e-30) / 127
        rounded = (weight.detach().float() / scale[:, None]).round().clamp(-127, 127).to(torch.int8)
        return cls.pack(rounded, bias, scale)

    def __call__(self, x: Tensor) -> Tensor:
        """x [..., K] -> [..., N] float32."""
        if x.shape[-1] != self.depth:
            raise ValueError(f"rows must have {self.depth} numbers, got {list(x.shape)}")
        if x.requires_grad and torch.is_grad_enabled():
            raise ValueError("a packed linear layer has no gradient; use torch.nn.functional.linear, or no_grad")
        rows = x if x.ndim == 2 else x.reshape(-1, self.depth)
        if rows.dtype != torch.float32:
            rows = rows.float()
        if rows.stride(1) != 1:
            rows = rows.contiguous()
        count = rows.shape[0]
        y = torch.empty((count, self.num_outputs))
        sizes = (count, self.depth, self.num_outputs, rows.stride(0), self.num_outputs)
        threads = torch.get_num_threads()
        extension().multiply_packed(*self._weights, rows.data_ptr(), y.data_ptr(), sizes, threads)
        return y if x.ndim == 2 else y.view(*x.shape[:-1], self.num_outputs)

    @cached_property
    def _weights(self) -> tuple[int, int, int, int]:
        """Addresses of panels, scale and bias, and what the panels hold, as the extension takes them."""
        scale, bias = (0 if t is None else t.data_ptr() for t in (self.scale, self.bias))
        return self.panels.data_ptr(), STORED[self.panels.dtype], scale, bias


def _floats(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.detach().float().contiguous()
