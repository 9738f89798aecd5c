"""How tensors are handed to the extension: an address, a type, a shape and strides."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from regard.run.native.extension import extension

FLOATS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2, torch.float64: 5}
TYPES = FLOATS | {torch.int32: 3, torch.int64: 4, torch.uint8: 6, torch.bool: 6}


class Views:
    """Makes views and keeps every tensor that they point to alive."""

    def __init__(self) -> None:
        self.native: Any = extension()
        self.alive: list[Tensor] = []
        self.nothing = self.native.View()

    def view(self, tensor: Tensor | None) -> Any:
        """The tensor as it lies; a lazily negated one is negated first."""
        if tensor is None:
            return self.nothing
        tensor = tensor.resolve_neg() if tensor.is_neg() else tensor
        self.alive.append(tensor)
        return self.native.view(tensor.data_ptr(), TYPES[tensor.dtype], list(tensor.shape), list(tensor.stride()))

    def floats(self, tensor: Tensor | None, *shape: int) -> Any:
        """The same as float32, repeated to a shape without copying."""
        if tensor is None:
            return self.nothing
        floats = tensor.detach().float()
        return self.view(floats.expand(shape) if shape else floats)


def unit_stride(tensor: Tensor) -> Tensor:
    """The tensor with its last dimension contiguous; what is repeated along others stays one slice."""
    return tensor if tensor.stride(-1) == 1 or tensor.shape[-1] <= 1 else tensor.contiguous()
