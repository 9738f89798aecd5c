"""Pictures of a list, as tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from regard.errors import UserError
from regard.tasks.kind import Rows

AT_ONCE = 512


def read_picture(path: Path, where: str) -> Any:
    """A picture in RGB, on white where it is transparent. Raises UserError naming the line that lists it."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise UserError("reading pictures needs pillow: pip install 'regard[hf]'") from None
    try:
        with Image.open(path) as image:
            if not image.has_transparency_data:
                return image.convert("RGB")
            seen = image.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen).convert("RGB")
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError):
        raise UserError(f"{where} names {path.name}, which is not an image that can be read; give a PNG") from None


def pixels_of(processor: Any, rows: Rows) -> Tensor:
    """float32 [N,3,height,width] of the files that rows (path, words, where) name."""
    parts = []
    for begin in range(0, len(rows), AT_ONCE):
        pictures = [read_picture(path, where) for path, _, where in rows[begin : begin + AT_ONCE]]
        parts.append(processor(images=pictures, return_tensors="pt")["pixel_values"])
    return torch.cat(parts)
