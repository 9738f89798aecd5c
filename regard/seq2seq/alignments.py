"""What each written word looked at: the exact weights of a model's cross-attention, read through the seam."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from regard.errors import UserError
from regard.hf.attach import attach
from regard.seeing.trace import Layer, Trace


@torch.no_grad()
def alignment(model: PreTrainedModel, source: Sequence[int], target: Sequence[int]) -> Tensor:
    """Weights float32 [T,S] of target tokens on source tokens, from one watched forward over both.

    A recurrent model has one attention. Of a Transformer it is the mean over the heads of the layer before the last
    of the decoder, which follows translation most closely (Garg 2019, section 4.1); of a single layer, of that.
    Raises UserError for a model without attention.
    """
    start = model.config.decoder_start_token_id
    with attach(model, watch=(), keep="qk") as trace:
        model(
            input_ids=torch.tensor([list(source)], device=model.device),
            attention_mask=torch.ones(1, len(source), dtype=torch.int64, device=model.device),
            decoder_input_ids=torch.tensor([[start, *target[:-1]]], device=model.device),
        )
    layer = chosen(trace)
    return torch.stack([trace.weights(layer, head) for head in layer.heads]).mean(0)


def chosen(trace: Trace) -> Layer:
    """The layer of a trace whose cross-attention is read as an alignment."""
    cross = sorted((layer for layer in trace.layers if layer.kind == "cross"), key=lambda layer: layer.index)
    if not cross:
        raise UserError(f"{trace.model} has no attention between its sides, so there is nothing to align by")
    return cross[max(len(cross) - 2, 0)]


def has_attention(model: PreTrainedModel) -> bool:
    """Whether a translator's decoder attends to its source at all."""
    return getattr(model.config, "attention", "some") != "none"


def hard(weights: Tensor) -> list[tuple[int, int]]:
    """For each target word the source word that it looks at most, as (source, target); none for a row of zeros."""
    return [(int(row.argmax()), target) for target, row in enumerate(weights) if row.numel() and float(row.max()) > 0]


def pharaoh(links: Sequence[tuple[int, int]]) -> str:
    """Links in Pharaoh's form: "0-0 2-1", source-target, counted from 0."""
    return " ".join(f"{source}-{target}" for source, target in sorted(links))
