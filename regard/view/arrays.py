"""Arrays inside JSON: little-endian, C order, zlib-deflated, base64; equal arrays are stored once.

A reference is {"at": place in the list of blobs, "type", "shape"}; type log8 adds {"floor", "top"}: code 0 stands for
values below the floor, code c ≥ 1 for floor · (top / floor) ^ ((c - 1) / 254). A value is then off by at most half a
step, a factor (top / floor) ^ (1 / 508): 2.2 % for a top of 1 and the floor 2^-16.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

LOG8_FLOOR = 2.0**-16
FLOAT16_TOP = 60000.0
Reference = dict[str, Any]


class Shelf:
    """The blobs of one scene, each kept once."""

    def __init__(self) -> None:
        self.blobs: list[str] = []
        self.size = 0  # characters of base64 so far
        self._place: dict[bytes, int] = {}

    def put(self, values: Tensor, kind: str) -> Reference:
        """Store as float64, float32, float16 (float32 where it would overflow), uint8, int16, int32 or log8."""
        array = values.detach().cpu().numpy()
        if kind == "float16" and array.size and np.abs(array).max() > FLOAT16_TOP:
            kind = "float32"
        if kind == "log8" and array.size and array.min() < 0:
            kind = "float16"
        extra: dict[str, float] = {}
        if kind == "log8":
            top = max(float(array.max(initial=0.0)), 2 * LOG8_FLOOR)
            extra = {"floor": LOG8_FLOOR, "top": top}
            array = _to_log8(array, top)
        raw = np.ascontiguousarray(array, dtype=np.dtype("uint8" if kind == "log8" else kind).newbyteorder("<"))
        return {"at": self._keep(raw.tobytes()), "type": kind, "shape": list(raw.shape), **extra}

    def put_whole(self, values: Tensor) -> Reference:
        """Store whole numbers in the smallest type that holds them."""
        if values.numel() == 0:
            return self.put(values, "uint8")
        low, high = int(values.min()), int(values.max())
        kind = "uint8" if low >= 0 and high < 256 else "int16" if low >= -32768 and high < 32768 else "int32"
        return self.put(values, kind)

    def _keep(self, raw: bytes) -> int:
        digest = hashlib.sha256(raw).digest()
        if digest not in self._place:
            self._place[digest] = len(self.blobs)
            self.blobs.append(base64.b64encode(zlib.compress(raw, 6)).decode("ascii"))
            self.size += len(self.blobs[-1])
        return self._place[digest]


def _to_log8(array: NDArray[Any], top: float) -> NDArray[np.uint8]:
    steps = 1 + 254 * np.log(np.maximum(array, LOG8_FLOOR) / LOG8_FLOOR) / np.log(top / LOG8_FLOOR)
    return np.where(array < LOG8_FLOOR, 0, np.round(steps)).astype(np.uint8)


def load(blobs: list[str], reference: Reference) -> NDArray[Any]:
    """The array a reference stands for; log8 comes back as float32 values."""
    kind = reference["type"]
    raw = zlib.decompress(base64.b64decode(blobs[reference["at"]]))
    dtype = np.dtype("uint8" if kind == "log8" else kind).newbyteorder("<")
    array = np.frombuffer(raw, dtype=dtype).reshape(reference["shape"])
    if kind != "log8":
        return array
    floor, top = reference["floor"], reference["top"]
    values = floor * (top / floor) ** ((array.astype(np.float32) - 1) / 254)
    return np.where(array == 0, 0, values).astype(np.float32)
