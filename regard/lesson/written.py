"""Programs as the page reads them: steps as JSON, numbers on the page's shelf of arrays, each kept once."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor

from regard.lesson.record import Program
from regard.view.arrays import Reference, Shelf

LARGEST_WHOLE = 2**31


def written(program: Program, shelf: Shelf) -> dict[str, Any]:
    """inputs, outputs, steps and sizes as recorded; constants: storage -> where its numbers are; written: storages that
    a step writes into."""
    used = _storages([program.steps, program.inputs, program.outputs])
    number = {old: new for new, old in enumerate(sorted(used))}
    into = _storages([step[2] for step in program.steps])
    return {
        "inputs": _numbered(program.inputs, number),
        "outputs": _numbered(program.outputs, number),
        "steps": _numbered(program.steps, number),
        "sizes": [program.sizes[old] for old in sorted(used)],
        "constants": {number[old]: stored(x, shelf) for old, x in program.constants.items() if old in used},
        "written": [number[old] for old in program.constants if old in into],
    }


def kept(value: Any, shelf: Shelf) -> Reference:
    """Anything that is JSON, as bytes on the shelf."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
    return shelf.put(torch.frombuffer(bytearray(text), dtype=torch.uint8), "uint8")


def stored(values: Tensor, shelf: Shelf) -> Reference:
    """Numbers in the smallest type that holds them exactly."""
    if values.dtype == torch.bool:
        return shelf.put(values, "uint8")
    if not values.dtype.is_floating_point:
        small = not values.numel() or bool((values.abs() < LARGEST_WHOLE).all())
        return shelf.put_whole(values) if small else shelf.put(values.double(), "float64")
    for name, dtype in (("float16", torch.float16), ("float32", torch.float32)):
        if torch.equal(values.to(dtype).to(values.dtype), values) and bool(torch.isfinite(values).all()):
            return shelf.put(values.to(dtype), name)
    return shelf.put(values.double(), "float64")


def _storages(value: Any) -> set[int]:
    if isinstance(value, dict):
        return {value["at"][0]} if "at" in value else _storages(list(value.values()))
    return {number for part in value for number in _storages(part)} if isinstance(value, list) else set()


def _numbered(value: Any, number: dict[int, int]) -> Any:
    """The same with storages counted anew."""
    if isinstance(value, dict) and "at" in value:
        return {"at": [number[value["at"][0]], value["at"][1]], "of": value["of"]}
    if isinstance(value, dict):
        return {key: _numbered(part, number) for key, part in value.items()}
    return [_numbered(part, number) for part in value] if isinstance(value, list) else value
