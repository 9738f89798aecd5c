"""What an answer attended to, as JSON: written once, row by row, up to a limit on its bytes."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor

from regard.run import native
from regard.run.native.extension import extension
from regard.serve.look import Seen
from regard.serve.request import Look

DIGITS = 1e6


class Shown:
    """The attention of one answer, growing. limit: bytes; what would exceed it is left out, and `truncated` says so."""

    def __init__(self, look: Look, num_layers: int, num_heads: int, limit: int) -> None:
        heads: Any = list(range(num_heads)) if look.heads == "all" else look.heads
        self._about = {
            "layers": sorted(look.layers) if look.layers is not None else list(range(num_layers)),
            "heads": list(heads) if isinstance(heads, tuple) else heads,
            "statistics": list(look.statistics),
            "spans": [list(span) for span in look.spans] if "messages" in look.statistics else None,
        }
        self._limit = limit
        self._bytes = 0
        self._full = False
        self.rows: list[str] = []
        self.prompt: list[str] = []
        self.received: str | None = None

    def add(self, rows: tuple[Seen, ...], prompt: tuple[Seen, ...] = (), received: Tensor | None = None) -> list[str]:
        """Take in what an event brought; the rows that were written."""
        self.prompt += self._written(prompt)
        new = self._written(rows)
        self.rows += new
        if received is not None and self._room(8 * received.numel()):
            self.received = _numbers(received)
        return new

    def _written(self, rows: tuple[Seen, ...]) -> list[str]:
        made = []
        for row in rows:
            text = row_json(row)
            if not self._room(len(text)):
                break
            made.append(text)
        return made

    def _room(self, size: int) -> bool:
        if self._full or self._bytes + size > self._limit:
            self._full = True
            return False
        self._bytes += size
        return True

    def json(self, rows: list[str] | None = None, first: bool = True, last: bool = True) -> str:
        """The field `attention` of a choice; in a stream with the rows of a chunk, what stands only in the first chunk
        and only in the last."""
        parts = []
        if first:
            about = {name: value for name, value in self._about.items() if value is not None}
            parts.append(json.dumps(about)[1:-1])
            if self.prompt:
                parts.append(f'"prompt": [{", ".join(self.prompt)}]')
        parts.append(f'"rows": [{", ".join(self.rows if rows is None else rows)}]')
        if last and self.received is not None:
            parts.append(f'"received": {self.received}')
        if self._full and last:
            said = f"attention is limited to {self._limit} bytes for each answer, and the rest was left out"
            parts.append(f'"truncated": {json.dumps(said)}')
        return "{" + ", ".join(parts) + "}"


def row_json(row: Seen) -> str:
    """One row: its position, and of each statistic a list over layers of lists over heads."""
    parts = [f'"position": {row.position}']
    for name, arrays in row.results.items():
        if name == "top":
            parts.append(f'"weights": {_numbers(arrays[0])}')
            parts.append(f'"keys": {_numbers(arrays[1])}')
        else:
            parts.append(f'"{name}": {_numbers(arrays[0])}')
    return "{" + ", ".join(parts) + "}"


def _numbers(x: Tensor) -> str:
    """Nested lists; of weights six decimals, for they are exact to 1e-5."""
    if native.available() and x.ndim in (2, 3) and x.dtype in (torch.float32, torch.int32):
        flat = x if x.ndim == 3 else x[None]
        text: str = extension().json_of(x.data_ptr(), x.dtype == torch.int32, list(flat.shape), list(flat.stride()))
        return text if x.ndim == 3 else text[1:-1]
    if not x.dtype.is_floating_point:
        return json.dumps(x.tolist())
    return json.dumps((x.double() * DIGITS).round().div(DIGITS).tolist())
