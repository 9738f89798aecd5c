"""A computation in torch, recorded as data that a page can run again on other inputs.

A Program is a list of torch's own operators, on pieces of flat storages: a piece is a storage's number with offset,
sizes and strides, so views need no operator. Only what depends on the inputs is recorded; everything else is a constant
with its numbers. So a program computes what was recorded, by the same operators in the same order, for any inputs of
the same shapes. Where a value of the inputs decides what is computed next, no program can hold for other inputs, and
recording raises Decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from regard.errors import UserError

DECIDING = frozenset({"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "equal"})


class Decides(UserError):
    """A value of the inputs decides which operators follow, so that what was recorded would not hold for others."""


@dataclass(frozen=True, eq=False)
class Program:
    """inputs, outputs: pieces by name; steps: [operator, {name: argument}, pieces of the results, kind of number];
    constants: {storage: numbers as a flat tensor}; sizes: how many numbers each storage holds."""

    inputs: dict[str, Any]
    outputs: dict[str, Any]
    steps: list[list[Any]]
    constants: dict[int, Tensor]
    sizes: list[int]


def recorded(
    compute: Callable[..., dict[str, Tensor]], inputs: dict[str, Tensor], recorder: Recorder | None = None
) -> Program:
    """What `compute(**inputs)` does, for any inputs of these shapes. Raises Decides where that depends on values.

    recorder: a new one, where `compute` restates some of its own functions as single steps.
    """
    recorder = Recorder() if recorder is None else recorder
    known = {name: recorder.input(value) for name, value in inputs.items()}
    with torch.no_grad(), recorder:
        results = compute(**inputs)
    outputs = {name: recorder.piece(value) for name, value in results.items()}
    steps = _needed(recorder.steps, outputs)
    return Program(known, outputs, steps, recorder.constants, recorder.sizes)


@dataclass(eq=False)
class Recorder(TorchDispatchMode):
    numbers: dict[int, int] = field(default_factory=dict)  # address of a storage -> its number
    sizes: list[int] = field(default_factory=list)
    constants: dict[int, Tensor] = field(default_factory=dict)
    steps: list[list[Any]] = field(default_factory=list)
    held: list[Tensor] = field(default_factory=list)  # so that no address is used twice

    def __post_init__(self) -> None:
        super().__init__()

    def input(self, value: Tensor) -> dict[str, Any]:
        self._number(value)
        return self.piece(value)

    def __torch_dispatch__(
        self, operator: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        tensors = _tensors((args, kwargs))
        name = operator._schema.name.removeprefix("aten::")
        if not any(self._depends(each) for each in tensors):
            return self._kept(operator(*args, **kwargs))
        if name in DECIDING:
            raise Decides(f"{name} of numbers that follow from the inputs decides what is computed next")
        writes = [x for x in _written(operator, args, kwargs) if not self._depends(x)]
        for target in writes:  # a constant that the inputs are written into: from here on it depends on them
            self._constant_storage(target)
        names = [argument.name for argument in operator._schema.arguments]
        asked = dict(zip(names, args, strict=False)) | kwargs
        said = {key: self._said(value) for key, value in asked.items() if key not in _TYPES}
        results = self._kept(operator(*args, **kwargs))
        made = _tensors(results)
        if operator.is_view or not made or name in _TURNS or (name in _ALIASES and all(map(self._depends, made))):
            return results
        if operator._schema.is_mutable or not all(self._depends(x) for x in made):
            for each in made:
                if not self._depends(each):
                    self._number(each)
            self.steps.append([name, said, [self.piece(each) for each in made], _kind(made[0])])
        return results

    def restate(self, name: str, compute: Callable[..., Tensor], **arguments: Tensor) -> Tensor:
        """`compute(**arguments)` as one step of this name, whatever it does within."""
        with torch.utils._python_dispatch._disable_current_modes():
            result = compute(**arguments)
        if any(self._depends(each) for each in arguments.values()):
            said = {key: self._said(value) for key, value in arguments.items()}
            self._number(result)
            self.steps.append([name, said, [self.piece(result)], _kind(result)])
        return result

    def piece(self, value: Tensor) -> dict[str, Any]:
        """A tensor as a part of its storage; of a constant, with its numbers as they are now."""
        if not self._depends(value):
            flat, strides = _flat(value.detach())
            number = self._new(flat.numel())
            self.constants[number] = flat
            return _piece(number, 0, value.shape, strides)
        number = self.numbers[value.untyped_storage().data_ptr()]
        return _piece(number, int(value.storage_offset()), value.shape, value.stride())

    def _said(self, argument: Any) -> Any:
        if isinstance(argument, Tensor):
            return self.piece(argument)
        if isinstance(argument, list | tuple):
            return [self._said(each) for each in argument]
        if isinstance(argument, float) and argument in (float("inf"), float("-inf")):
            return {"number": "inf" if argument > 0 else "-inf"}
        return argument if argument is None or isinstance(argument, bool | int | float | str) else None

    def _depends(self, value: Tensor) -> bool:
        return value.numel() > 0 and value.untyped_storage().data_ptr() in self.numbers

    def _number(self, value: Tensor) -> int:
        self.held.append(value)
        if value.numel() == 0:
            return -1
        number = self._new(value.untyped_storage().nbytes() // value.element_size())
        self.numbers[value.untyped_storage().data_ptr()] = number
        return number

    def _constant_storage(self, value: Tensor) -> None:
        number = self._number(value)
        if number >= 0:
            whole = value.detach().as_strided((self.sizes[number],), (1,), 0).clone()
            self.constants[number] = whole

    def _new(self, size: int) -> int:
        self.sizes.append(size)
        return len(self.sizes) - 1

    def _kept(self, results: Any) -> Any:
        self.held += _tensors(results)
        return results


_TYPES = frozenset({"dtype", "layout", "device", "pin_memory", "memory_format", "generator"})
_ALIASES = frozenset({"_reshape_alias", "detach", "alias", "lift_fresh"})
_TURNS = frozenset({"transpose_", "t_", "squeeze_", "unsqueeze_", "as_strided_"})  # change how a tensor lies, no number


def _kind(value: Tensor) -> str:
    """b: truth values, i: whole numbers, f: others."""
    return "b" if value.dtype == torch.bool else "f" if value.dtype.is_floating_point else "i"


def _flat(value: Tensor) -> tuple[Tensor, Sequence[int]]:
    """The numbers as they lie in memory where they fill it, so that a matrix and its transpose are the same numbers;
    and the strides of `value` over them."""
    order = sorted(range(value.ndim), key=lambda dim: -value.stride()[dim])
    if not value.permute(order).is_contiguous():
        value = value.contiguous()
        order = list(range(value.ndim))
    return value.permute(order).clone().reshape(-1), value.stride()


def _piece(number: int, offset: int, sizes: Sequence[int], strides: Sequence[int]) -> dict[str, Any]:
    return {"at": [number, offset], "of": [list(sizes), list(strides)]}


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, list | tuple):
        return [each for part in value for each in _tensors(part)]
    return [each for part in value.values() for each in _tensors(part)] if isinstance(value, dict) else []


def _written(operator: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Tensor]:
    """The tensors that an operator writes into."""
    found = []
    for at, argument in enumerate(operator._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[at] if at < len(args) else kwargs.get(argument.name)
            found += _tensors(value)
    return found


def _storages(value: Any) -> set[int]:
    if isinstance(value, dict):
        return {value["at"][0]} if "at" in value else {n for part in value.values() for n in _storages(part)}
    return {n for part in value for n in _storages(part)} if isinstance(value, list) else set()


def _needed(steps: list[list[Any]], outputs: dict[str, Any]) -> list[list[Any]]:
    """The steps that the outputs follow from."""
    wanted, kept = _storages(outputs), []
    for step in reversed(steps):
        if _storages(step[2]) & wanted:
            wanted |= _storages(step[1]) | _storages(step[2])
            kept.append(step)
    return kept[::-1]
