"""The families of transformers: directories of models, and the model classes in each."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

import transformers
from transformers import PreTrainedModel

MODELS = Path(transformers.__file__).parent / "models"
# The whole model, where the shortest name is that of a part of it.
PLAIN: dict[str, str] = {
    "musicgen": "MusicgenForConditionalGeneration",
    "musicgen_melody": "MusicgenMelodyForConditionalGeneration",
    "pix2struct": "Pix2StructForConditionalGeneration",
    "qwen3_omni_moe": "Qwen3OmniMoeThinkerForConditionalGeneration",
    "slanet": "SLANetForTableRecognition",
    "slanext": "SLANeXtForTableRecognition",
}
NAMES = Path(__file__).with_name("families.txt")


def installed() -> list[str]:
    """The directories of the installed transformers that hold modelling code."""
    return sorted(path.name for path in MODELS.iterdir() if any(path.glob("modeling_*.py")) and path.name != "auto")


def written() -> list[str]:
    """The names written down in the project, so that none drops out unseen."""
    return NAMES.read_text(encoding="utf-8").split()


def classes_of(family: str) -> list[type[PreTrainedModel]]:
    """The public model classes of a directory that can be built from their config, the plain model first."""
    found: dict[str, Any] = {}
    for path in sorted((MODELS / family).glob("modeling_*.py")):
        module = importlib.import_module(f"transformers.models.{family}.{path.stem}")
        for name in getattr(module, "__all__", ()):
            member = getattr(module, name, None)
            if inspect.isclass(member) and issubclass(member, PreTrainedModel) and _runs(member):
                found[name] = member
    return sorted(found.values(), key=lambda kind: (not kind.__name__.endswith("Model"), len(kind.__name__)))


def _runs(kind: type[PreTrainedModel]) -> bool:
    has_forward = not kind.__name__.endswith("PreTrainedModel") and kind.forward is not PreTrainedModel.forward
    return has_forward and getattr(kind, "config_class", None) is not None


def plain_class(family: str) -> type[PreTrainedModel]:
    """The class that stands for a directory: the plain model, unless PLAIN names another."""
    kinds = classes_of(family)
    return next((kind for kind in kinds if kind.__name__ == PLAIN.get(family)), kinds[0])
