"""Which attention module is which: its layer, kind and stack, and the projection its heads go through."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from regard.hf.arguments import parameters_of
from regard.hf.families import LEARNED_QUERIES
from regard.hf.own_code.modules import is_attention

CROSS = re.compile(
    r"encoder_attn|encdecattention|crossattention|cross_attn|cross_attention|token_to_image|image_to_token",
    re.IGNORECASE,
)
TOWERS = {
    "vision": ("vision", "visual", "image"),
    "audio": ("audio", "speech"),
    "text": ("text_model", "language_model"),
}
MAIN_INPUTS = {"pixel_values": "vision", "input_values": "audio", "input_features": "audio"}
PROJECTIONS = ("o_proj", "out_proj", "c_proj", "o", "out_lin", "Wo", "dense", "proj")


@dataclass(frozen=True)
class LayerId:
    """Which attention module of a model it is: (stack, kind, index) is unique.

    name: the module's dotted name. stack: "decoder", "encoder", "vision", "audio" or "text", with more words where a
    model has several of a sort. index: the layer's number in its stack. tower: what its tokens are.
    """

    name: str
    index: int
    kind: Literal["self", "cross"]
    stack: str
    tower: str


def layer_ids(model: PreTrainedModel) -> dict[int, LayerId]:
    """The LayerId of every module that may be attention, by id of the module."""
    modules = dict(model.named_modules())
    inner = [(name, m) for name, m in modules.items() if isinstance(m, PreTrainedModel)]
    ids: dict[str, LayerId] = {}
    for name, module in modules.items():
        if name:
            parent = max((m for m in inner if _inside(name, m[0])), key=lambda m: len(m[0]))[1]
            cross = bool(CROSS.search(name)) or bool(getattr(module, "is_cross_attention", False))
            tower = _tower(name, module, model, parent)
            ids[name] = LayerId(name, _index_of(name, module), "cross" if cross else "self", tower, tower)
    attention = [name for name, module in attention_modules(model)]
    stacks = _stack_names([ids[name] for name in attention])
    ids = {name: replace(each, stack=stacks.get(group_of(name), each.stack)) for name, each in ids.items()}
    return {id(modules[name]): each for name, each in _numbered(ids, attention).items()}


def attention_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """(dotted name, module) of what is called attention and holds no other such module."""
    for name, module in model.named_modules():
        if name and is_attention(module):
            inner = module.modules()
            if not any(is_attention(other) for other in inner if other is not module):
                yield name, module


def group_of(name: str) -> str:
    """The path of the list of layers that a module lies in: its name up to the first number, or its parent's."""
    parts = name.split(".")
    first = next((i for i, part in enumerate(parts) if part.isdigit()), len(parts) - 1)
    return ".".join(parts[:first])


def _stack_names(layers: list[LayerId]) -> dict[str, str]:
    """A name of its own for each list of layers: its tower, and where several share one, the words that differ."""
    groups = {group_of(layer.name): layer.tower for layer in layers}
    names: dict[str, str] = {}
    for group, tower in groups.items():
        same = [other for other, its in groups.items() if its == tower]
        if len(same) == 1 or group == same[0]:
            names[group] = tower
            continue
        common = set.intersection(*(set(other.split(".")) for other in same))
        words = [part for part in group.split(".") if part not in common and part != tower]
        name = " ".join((tower, *words)) if words else tower
        names[group] = name if name not in names.values() else f"{tower} {group}"
    return names


def _numbered(ids: dict[str, LayerId], attention: list[str]) -> dict[str, LayerId]:
    """The same with unique indices: where several modules of a stack share one, all of it are counted in order."""
    kinds: dict[tuple[str, str], list[str]] = {}
    for name in attention:
        kinds.setdefault((ids[name].stack, ids[name].kind), []).append(name)
    changed = dict(ids)
    for names in kinds.values():
        if len({ids[name].index for name in names}) < len(names):
            changed |= {name: replace(ids[name], index=number) for number, name in enumerate(names)}
    return changed


def _index_of(name: str, module: nn.Module) -> int:
    index = getattr(module, "layer_idx", None)
    if isinstance(index, int):
        return index
    # T5 counts blocks, then the sub-layers inside a block; the block is the layer
    return next((int(part) for part in name.split(".") if part.isdigit()), 0)


def _inside(name: str, prefix: str) -> bool:
    return prefix == "" or name == prefix or name.startswith(prefix + ".")


def _tower(name: str, module: nn.Module, model: PreTrainedModel, parent: PreTrainedModel) -> str:
    role = "decoder" if "decoder" in name.split(".") else "encoder"
    if any(word in name for word in LEARNED_QUERIES):
        return "encoder"
    tower = next((tower for tower, words in TOWERS.items() if any(word in name for word in words)), None)
    if tower in (None, "text") and any(getattr(m.config, "is_encoder_decoder", False) for m in (model, parent)):
        return role
    if tower is not None:
        return tower
    main: Any = model.main_input_name  # some models name several
    tower = MAIN_INPUTS.get(main if isinstance(main, str) else main[0])
    if tower is not None and "input_ids" not in parameters_of(parent):
        return tower
    config = getattr(module, "config", model.config)
    causal = getattr(module, "is_causal", False) or getattr(config, "is_decoder", False)
    return "decoder" if causal else "encoder"


def output_projection(module: nn.Module, model: nn.Module, name: str, width: int) -> Tensor | None:
    """W_O as [heads · Dv, model width], or None where no linear layer of that input width can be told for sure."""
    for child in PROJECTIONS:
        matrix = _matrix(getattr(module, child, None), width)
        if matrix is not None:
            return matrix
    if "." not in name:
        return None
    parent = model.get_submodule(name.rsplit(".", 1)[0])  # BERT: attention.self beside attention.output.dense
    return _matrix(getattr(getattr(parent, "output", None), "dense", None), width)


def _matrix(layer: nn.Module | None, width: int) -> Tensor | None:
    """The weight of a plain linear layer: one that is quantised or adapted multiplies by something else."""
    if type(layer) is nn.Linear and layer.in_features == width:
        return layer.weight.t()
    if type(layer) is Conv1D and layer.weight.shape[0] == width:
        return layer.weight
    return None


@torch.no_grad()
def value_norms(value: Tensor, projection: Tensor, num_heads: int) -> Tensor:
    """‖v_j W_O^h‖ for each query head h, float32 [B,H,Tk] (Kobayashi 2020, eq. 6), from value [B,G,Tk,Dv].

    With M_h = W_O^h W_O^hᵀ, the norm is sqrt(v M_h vᵀ): no tensor larger than the values is made.
    """
    groups, width = value.shape[1], value.shape[3]
    per_head = projection.detach().float().reshape(num_heads, width, -1)
    gram = per_head @ per_head.transpose(1, 2)
    v = value.detach().float()
    norms = []
    for head in range(num_heads):
        vh = v[:, head // (num_heads // groups)]
        norms.append(((vh @ gram[head]) * vh).sum(-1).clamp(min=0).sqrt())
    return torch.stack(norms, 1)
