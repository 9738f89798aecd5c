"""Programs as the page reads them: steps as JSON, numbers in one pool, equal ones once."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import torch
from torch import Tensor

from regard.lesson.record import Program
from regard.view.arrays import Reference, Shelf

LARGEST_WHOLE = 2**31


def written(program: Program, pool: Pool) -> dict[str, Any]:
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
        "constants": {number[old]: pool.put(x) for old, x in program.constants.items() if old in used},
        "written": [number[old] for old in program.constants if old in into],
    }


class Pool:
    """Numbers one after the other, equal ones once, so that a page unpacks them at once."""

    def __init__(self) -> None:
        self.bytes = bytearray()
        self._known: dict[bytes, int] = {}

    def put(self, values: Tensor) -> Reference:
        """{begin, bytes, type, shape}: in the smallest type that holds the numbers exactly, little-endian."""
        kind = _kind(values)
        raw = values.detach().cpu().numpy().astype(np.dtype(kind).newbyteorder("<")).tobytes()
        digest = hashlib.sha256(raw).digest()
        if digest not in self._known:
            self.bytes += bytes(-len(self.bytes) % 8)
            self._known[digest] = len(self.bytes)
            self.bytes += raw
        return {"begin": self._known[digest], "bytes": len(raw), "type": kind, "shape": list(values.shape)}


def _kind(values: Tensor) -> str:
    if values.dtype == torch.bool:
        return "uint8"
    if not values.dtype.is_floating_point:
        return "int32" if not values.numel() or bool((values.abs() < LARGEST_WHOLE).all()) else "float64"
    for name, dtype in (("float16", torch.float16), ("float32", torch.float32)):
        if torch.equal(values.to(dtype).to(values.dtype), values):
            return name
    return "float64"


def kept(value: Any, shelf: Shelf) -> Reference:
    """Anything that is JSON, as bytes on the shelf."""
    return raw(json.dumps(value, separators=(",", ":"), allow_nan=False).encode(), shelf)


def raw(content: bytes | bytearray, shelf: Shelf) -> Reference:
    return shelf.put(torch.frombuffer(bytearray(content), dtype=torch.uint8), "uint8")


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
