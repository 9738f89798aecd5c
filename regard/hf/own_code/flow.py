"""Which tensor is attention: a softmax over the last axis that is then summed over that axis with values.

A softmax's result is followed from operation to operation: views share its memory, and element-wise changes (a mask, a
type, a renormalisation) hand it on. Where it enters a product that sums over its last axis, it is the attention.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn


@dataclass(eq=False)
class Followed:
    """One softmax on its way: the weights as last changed, their latest form with four axes, and where they went.

    scores: what the softmax was taken of. made: its result. used: the weights as they met the values, None as yet.
    """

    owner: nn.Module
    scores: Tensor
    made: Tensor
    now: Tensor
    four: Tensor | None = None
    used: Tensor | None = None
    dropped: float = 0.0
    unclear: str | None = None
    kept: list[Tensor] = field(default_factory=list)  # so that no other tensor can take the memory followed


def key_of(tensor: Tensor) -> int:
    """Names the memory of a tensor."""
    return tensor.untyped_storage().data_ptr()


class Flow:
    """Every softmax of the attention modules that are running now."""

    def __init__(self) -> None:
        self.by_memory: dict[int, Followed] = {}
        self.all: list[Followed] = []
        self._steps: dict[int, tuple[Tensor, Tensor]] = {}  # exp(x - logsumexp(x)) on its way: (x, the latest result)

        self._noise: dict[int, tuple[float, Tensor]] = {}  # what a CPU's dropout multiplies by, and the chance to keep

    def clear(self) -> None:
        self._noise.clear()
        self._steps.clear()
        self.by_memory.clear()
        self.all.clear()

    def of(self, tensor: object) -> Followed | None:
        """What is followed in the memory of this tensor."""
        return self.by_memory.get(key_of(tensor)) if isinstance(tensor, Tensor) and self.by_memory else None

    def begin(self, owner: nn.Module, scores: Tensor, weights: Tensor) -> None:
        followed = Followed(owner, scores, weights, weights)
        self.all.append(followed)
        self._also(followed, weights)

    def exponential(self, owner: nn.Module, name: str, args: tuple[Any, ...], result: Tensor) -> None:
        """One step of exp(x - logsumexp(x)) over the last axis, which is a softmax in three steps."""
        if name == "aten::logsumexp":
            dims = args[1] if isinstance(args[1], list | tuple) else [args[1]]
            if [dim % args[0].ndim for dim in dims] == [args[0].ndim - 1]:
                self._steps[key_of(result)] = (args[0], result)
            return
        step = self._steps.get(key_of(args[-1])) if isinstance(args[-1], Tensor) else None
        if step is None:
            return
        if name == "aten::sub" and key_of(args[0]) == key_of(step[0]):
            self._steps[key_of(result)] = (step[0], result)
        elif name == "aten::exp" and result.shape == step[0].shape:
            self.begin(owner, step[0], result)

    def _also(self, followed: Followed, tensor: Tensor) -> None:
        if tensor.numel():
            self.by_memory[key_of(tensor)] = followed
            followed.kept.append(tensor)
            if tensor.ndim == 4:
                followed.four = tensor

    def viewed(self, followed: Followed, result: Tensor) -> None:
        """The same memory in another shape."""
        if result.ndim == 4:
            followed.four = result

    def changed(self, followed: Followed, before: Tensor, result: Tensor) -> None:
        """An element-wise change, in new memory or in place."""
        if result.shape != before.shape:
            if result.numel() > before.numel():
                followed.unclear = "its weights were multiplied element by element with something larger"
            return
        if before.numel() == followed.now.numel():
            followed.now = result
        self._also(followed, result)

    def dropped(self, followed: Followed, result: Tensor, probability: float) -> None:
        """Dropout: followed further, while the weights stay those before."""
        followed.dropped = probability
        if followed.used is None and result.numel():
            self.by_memory[key_of(result)] = followed
            followed.kept.append(result)

    def noise(self, drawn: Tensor, chance: object) -> None:
        """A tensor of zeros and, with this chance, ones: what dropout multiplies by where it is not one operation."""
        if isinstance(chance, float):
            self._noise[key_of(drawn)] = (chance, drawn)

    def chance(self, args: tuple[Any, ...]) -> float | None:
        """The chance to keep of a dropout's noise among the arguments of a product."""
        found = [self._noise[key_of(a)][0] for a in args if isinstance(a, Tensor) and key_of(a) in self._noise]
        return found[0] if found else None

    def product(self, operand: Tensor, axis: int, other: object) -> None:
        """A product that sums over `axis` of operand."""
        followed = self.of(operand)
        if followed is None or followed.used is not None:
            return
        if self.of(other) is not None:
            followed.unclear = "its weights were multiplied with another softmax"
            return
        found = _as_used(followed, operand, axis)
        if found is not None:
            followed.used = found


def _as_used(followed: Followed, operand: Tensor, axis: int) -> Tensor | None:
    """The weights with keys last, as they stand in a product that sums over `axis` of operand; None if over another."""
    choices = [t for t in (followed.now, followed.four) if t is not None and t.ndim >= 4]
    for choice in (*choices, followed.now, operand):
        if choice.numel() != operand.numel() or choice.shape[-1] != operand.shape[axis]:
            continue
        same = key_of(choice) == key_of(operand)
        if choice is operand and axis % operand.ndim != operand.ndim - 1:
            continue
        if same and choice.shape[-1] > 1 and choice.stride(-1) != operand.stride(axis):
            continue
        if not same and followed.dropped == 0.0:
            continue
        return choice
    return None
