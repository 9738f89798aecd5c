"""Which attention module is which: its layer, kind and stack, and the projection its heads go through."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

CROSS = re.compile(r"encoder_attn|encdecattention|crossattention|cross_attn|cross_attention", re.IGNORECASE)
TOWERS = {
    "vision": ("vision", "visual", "image"),
    "audio": ("audio", "speech"),
    "text": ("text_model", "language_model"),
}
PROJECTIONS = ("o_proj", "out_proj", "c_proj", "o", "out_lin", "Wo", "dense", "proj")


@dataclass(frozen=True)
class Place:
    """Where an attention module sits. stack: "decoder", "encoder", "vision", "audio" or "text"."""

    name: str
    index: int
    kind: Literal["self", "cross"]
    stack: str


def place_of(name: str, module: nn.Module, model: PreTrainedModel) -> Place:
    """The place of the module with this dotted name in the model."""
    cross = bool(CROSS.search(name)) or bool(getattr(module, "is_cross_attention", False))
    return Place(name, _index_of(name, module), "cross" if cross else "self", _stack_of(name, module, model))


def _index_of(name: str, module: nn.Module) -> int:
    numbers = [int(part) for part in name.split(".") if part.isdigit()]
    given = getattr(module, "layer_idx", None)
    if isinstance(given, int):
        return given
    # T5 counts blocks, then the sub-layers inside a block; the block is the layer
    return numbers[0] if numbers else 0


def _stack_of(name: str, module: nn.Module, model: PreTrainedModel) -> str:
    for stack, words in TOWERS.items():
        if any(word in name for word in words):
            return stack
    if getattr(model.config, "is_encoder_decoder", False):
        return "decoder" if "decoder" in name.split(".") or name.startswith("decoder") else "encoder"
    if model.main_input_name == "pixel_values":
        return "vision"
    if model.main_input_name in ("input_values", "input_features"):
        return "audio"
    config = getattr(module, "config", model.config)
    causal = getattr(module, "is_causal", False) or getattr(config, "is_decoder", False)
    return "decoder" if causal else "encoder"


def output_projection(module: nn.Module, model: PreTrainedModel, name: str, width: int) -> Tensor | None:
    """W_O as [heads · Dv, model width], or None where no linear layer of that input width can be told for sure."""
    for child in PROJECTIONS:
        found = _matrix(getattr(module, child, None), width)
        if found is not None:
            return found
    if "." not in name:
        return None
    parent = model.get_submodule(name.rsplit(".", 1)[0])  # BERT: attention.self beside attention.output.dense
    return _matrix(getattr(getattr(parent, "output", None), "dense", None), width)


def _matrix(layer: nn.Module | None, width: int) -> Tensor | None:
    if isinstance(layer, nn.Linear) and layer.in_features == width:
        return layer.weight.t()
    if isinstance(layer, Conv1D) and layer.weight.shape[0] == width:
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
