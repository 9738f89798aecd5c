"""Where a healing stands, as one safetensors file: what is trained, Adam's moments, the step."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from regard.errors import UserError

FILE = "healing.safetensors"


def save(folder: Path, about: Mapping[str, object], tensors: Mapping[str, Tensor]) -> None:
    """Write the tensors and what is said of them, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / f".{FILE}"
    save_file(
        {name: t.detach().contiguous() for name, t in tensors.items()}, beside, {"about": json.dumps(dict(about))}
    )
    os.replace(beside, folder / FILE)


def load(folder: Path, recipe: str) -> tuple[int, dict[str, Tensor]] | None:
    """The step and the tensors, None where nothing was begun.

    Raises UserError for a file that cannot be read, and for a healing with another recipe.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})["about"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, ValueError):
        raise UserError(f"{path} cannot be read; remove it to begin anew") from None
    if about["recipe"] != recipe:
        raise UserError(
            f"{folder} holds a healing of another plan, text or recipe; give the same, or another directory"
        )
    return int(about["step"]), tensors


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Parameters and moments by name."""
    tensors = dict(names)
    for name, parameter in names.items():
        for key in ("exp_avg", "exp_avg_sq", "step"):
            if key in optimizer.state.get(parameter, {}):
                tensors[f"{key}:{name}"] = optimizer.state[parameter][key]
    return tensors


@torch.no_grad()
def restore(optimizer: torch.optim.Optimizer, names: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Set parameters and moments; those that the file has no moments of begin anew."""
    for name, parameter in names.items():
        if name in tensors:
            parameter.copy_(tensors[name])
        if f"step:{name}" in tensors:
            keys = ("exp_avg", "exp_avg_sq", "step")
            optimizer.state[parameter] = {key: tensors[f"{key}:{name}"].clone() for key in keys}
