"""Linear layers for serving: those that share an input joined into one product, weights packed once.

Weights that are bfloat16 numbers, whatever type holds them, are stored as such: half the bytes to read, the same bits
of every result. int8 is asked for by name, for it changes results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from regard.run.native.linear import PackedLinear

JOINED = (
    ("q_proj", "k_proj", "v_proj"),
    ("gate_proj", "up_proj"),
)

Pack = Callable[[Tensor, Tensor | None], PackedLinear]


def as_stored(weight: Tensor, bias: Tensor | None) -> PackedLinear:
    """bfloat16 where that changes no number, float32 otherwise."""
    half = weight.detach().bfloat16()
    return PackedLinear.pack(half if bool((half == weight).all()) else weight.detach().float(), bias)


def as_float32(weight: Tensor, bias: Tensor | None) -> PackedLinear:
    """float32, whatever the numbers are."""
    return PackedLinear.pack(weight.detach().float(), bias)


def as_int8(weight: Tensor, bias: Tensor | None) -> PackedLinear:
    """int8 with a scale per output; rows of the input are rounded to int8 too, each with a scale of its own."""
    return PackedLinear.quantised(weight, bias, rows=True)


WEIGHTS: dict[str, Pack] = {"stored": as_stored, "float32": as_float32, "int8": as_int8}


class Packed(nn.Module):
    """A linear layer whose weight is in panels; no parameter is left."""

    def __init__(self, packed: PackedLinear, dtype: torch.dtype) -> None:
        super().__init__()
        self.packed = packed
        self.dtype = dtype
        self.in_features, self.out_features = packed.depth, packed.num_outputs

    def forward(self, x: Tensor) -> Tensor:
        return self.packed(x).to(self.dtype)


class Shared:
    """One product for several layers that read the same tensor: computed when the first of them is called."""

    def __init__(self, packed: PackedLinear, sizes: list[int], dtype: torch.dtype) -> None:
        self.packed = packed
        self.sizes = sizes
        self.dtype = dtype
        self.read: Tensor | None = None
        self.parts: tuple[Tensor, ...] = ()
        self.left = 0

    def part(self, x: Tensor, index: int) -> Tensor:
        """Outputs of layer `index` for x."""
        if self.read is not x:
            self.read, self.left = x, len(self.sizes)
            self.parts = self.packed(x).to(self.dtype).split(self.sizes, -1)
        result = self.parts[index]
        self.left -= 1
        if self.left == 0:
            self.read, self.parts = None, ()
        return result


class Part(nn.Module):
    """One of the layers of a Shared product."""

    def __init__(self, shared: Shared, index: int, depth: int) -> None:
        super().__init__()
        self.shared = shared
        self.index = index
        self.in_features, self.out_features = depth, shared.sizes[index]

    def forward(self, x: Tensor) -> Tensor:
        return self.shared.part(x, self.index)


@contextmanager
def read_by_hand(model: nn.Module) -> Iterator[set[int]]:
    """The ids of linear layers whose weights the model's code reads itself while the block runs: they stay unpacked."""
    found: set[int] = set()

    class Watched(nn.Linear):
        """A linear layer that notes when its weight is read other than by calling it."""

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.linear(x, cast(Tensor, self._parameters["weight"]), self._parameters["bias"])

        def __getattribute__(self, name: str) -> Any:
            if name == "weight":
                found.add(id(self))
            return super().__getattribute__(name)

    layers = [module for module in model.modules() if type(module) is nn.Linear]
    for layer in layers:
        layer.__class__ = Watched
    try:
        yield found
    finally:
        for layer in layers:
            layer.__class__ = nn.Linear


def pack(model: nn.Module, how: Pack = as_stored, leave: Set[int] = frozenset()) -> int:
    """Replace every linear layer of a model by a packed one, joining those that share an input; how many products
    are left. The weights of replaced layers are let go. leave: ids of layers that stay as they are."""
    products = 0
    for module in list(model.modules()):
        products += _join(module, how, leave)
        for name, child in list(module.named_children()):
            made = None if id(child) in leave else _packed(child, how)
            if made is not None:
                setattr(module, name, made)
                products += 1
    return products


def packed_in(model: nn.Module) -> list[PackedLinear]:
    """Every product of a packed model, once."""
    found = [
        m.packed if isinstance(m, Packed) else m.shared.packed for m in model.modules() if isinstance(m, (Packed, Part))
    ]
    return list({id(p): p for p in found}.values())


def _join(module: nn.Module, how: Pack, leave: Set[int]) -> int:
    made = 0
    for names in JOINED:
        layers: list[Any] = [getattr(module, name, None) for name in names]
        if not all(type(layer) is nn.Linear and id(layer) not in leave for layer in layers):
            continue
        weight = torch.cat([layer.weight.detach() for layer in layers])
        bias = None
        if any(layer.bias is not None for layer in layers):
            bias = torch.cat([_bias(layer) for layer in layers])
        sizes = [layer.out_features for layer in layers]
        shared = Shared(how(weight, bias), sizes, weight.dtype)
        for index, name in enumerate(names):
            setattr(module, name, Part(shared, index, weight.shape[1]))
        made += 1
    return made


def _bias(layer: nn.Linear) -> Tensor:
    return layer.weight.new_zeros(layer.out_features) if layer.bias is None else layer.bias.detach()


def _packed(layer: nn.Module, how: Pack) -> Packed | None:
    """The packed form of a linear layer (or of GPT-2's, which keeps its weight transposed); None for other modules."""
    if type(layer) is nn.Linear:
        return Packed(how(layer.weight, layer.bias), layer.weight.dtype)
    if type(layer).__name__ == "Conv1D" and getattr(layer, "nf", None) is not None:
        weight: Any = layer.weight
        bias: Any = layer.bias
        return Packed(how(weight.T, bias), weight.dtype)
    return None
