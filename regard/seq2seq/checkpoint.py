"""Checkpoints: one safetensors file that holds all a training needs to go on, replaced whole or not at all."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from regard.errors import UserError

MOMENTS = ("step", "exp_avg", "exp_avg_sq")
FOLDER, FILE = "training", "checkpoint.safetensors"


@dataclass
class Counters:
    """How far a training is: steps, the epoch and the batches done in it, the best score and the evaluations since,
    seconds of wall and processor time, and a row for every evaluation."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    best: float = float("-inf")
    waited: int = 0
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    tokens: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    done: str = ""


def save(folder: Path, tensors: dict[str, Tensor], counters: Counters, recipe: str) -> None:
    """Write the checkpoint of a training beside the last one, then in its stead. Raises UserError on a full disk."""
    target = folder / FOLDER / FILE
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_suffix(".new")
    told = {"counters": json.dumps(asdict(counters)), "recipe": recipe}
    try:
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, beside, told)
        _settle(beside)
        os.replace(beside, target)
    except (OSError, SafetensorError) as error:
        beside.unlink(missing_ok=True)
        raise UserError(f"cannot write {target} ({error}); the checkpoint before it is whole, make room") from None


def _settle(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def load(folder: Path) -> tuple[dict[str, Tensor], Counters, str] | None:
    """The last whole checkpoint: tensors, counters, recipe; None where there is none yet."""
    path = folder / FOLDER / FILE
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as file:
            told = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
        return tensors, Counters(**json.loads(told["counters"])), told["recipe"]
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not a checkpoint of regard train ({error}); remove it to begin anew") from None


def _trained(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def tensors_of(model: nn.Module, optimizer: torch.optim.Optimizer, average: list[Tensor]) -> dict[str, Tensor]:
    """Weights, Adam's moments, the running mean and the state of the random numbers, by name."""
    found: dict[str, Tensor] = {"random": torch.get_rng_state()}
    if torch.cuda.is_available():
        found["random.cuda"] = torch.cuda.get_rng_state()
    for number, (name, parameter) in enumerate(_trained(model)):
        found[f"model.{name}"] = parameter
        if average:
            found[f"average.{name}"] = average[number]
        for key, value in optimizer.state.get(parameter, {}).items():
            found[f"{key}.{name}"] = value
    return found


def restore(
    model: nn.Module, optimizer: torch.optim.Optimizer, average: list[Tensor], tensors: dict[str, Tensor]
) -> None:
    """Put the tensors of `tensors_of` back. Raises UserError where they are another model's."""
    with torch.no_grad():
        for number, (name, parameter) in enumerate(_trained(model)):
            kept = tensors.get(f"model.{name}")
            if kept is None or kept.shape != parameter.shape:
                raise UserError(f"the checkpoint is another architecture's: it has no {name} {list(parameter.shape)}")
            parameter.copy_(kept)
            if average:
                average[number].copy_(tensors[f"average.{name}"])
            state = {key: tensors[f"{key}.{name}"] for key in MOMENTS if f"{key}.{name}" in tensors}
            optimizer.state[parameter] = {
                key: value.clone() if key == "step" else value.to(parameter.device, copy=True)
                for key, value in state.items()
            }
    torch.set_rng_state(tensors["random"])
    if "random.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random.cuda"])
